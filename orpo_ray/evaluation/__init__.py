"""Held-out accuracy with its interval, by one long-lived evaluator."""
