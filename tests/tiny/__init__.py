"""Tiny random models and a toy task: real parts, small enough for any machine."""
