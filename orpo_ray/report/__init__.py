"""What a person sees of a run: progress while it works, the table at its end, the card of the student."""
