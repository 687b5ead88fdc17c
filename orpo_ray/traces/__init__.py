"""Reasoning traces: what is kept of each, how they are stored, and how alike two are."""
