"""What each state of a run does on Ray."""
