"""Student traces: from the initial student, and live through the gated stream."""
