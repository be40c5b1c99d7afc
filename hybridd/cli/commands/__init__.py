"""One module for each command; each exports ``cli``."""
