"""vLLM, wrapped once."""
