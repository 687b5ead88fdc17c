"""The black-box teacher: one protocol, three backends (served by us, any OpenAI-compatible URL, recorded traces)."""

from orpo_ray.teacher.protocol import Sample, Teacher

__all__ = ["Sample", "Teacher"]
