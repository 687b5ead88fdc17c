"""The command line. Importing it costs little: everything heavy is imported by the command that needs it."""

from orpo_ray.cli.app import main

__all__ = ["main"]
