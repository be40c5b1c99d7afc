"""Machine learning that runs in jobs and in the specialists plugin; neither the daemon nor the API imports it."""
