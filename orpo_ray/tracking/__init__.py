"""A run's numbers for those who watch it: trackers."""
