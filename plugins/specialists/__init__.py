"""The built-in scikit-learn specialists, answering offline."""
