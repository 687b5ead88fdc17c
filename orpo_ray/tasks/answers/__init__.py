"""Reads the final answer out of a completion: `statements` finds where one is stated, a reader says what it is."""
