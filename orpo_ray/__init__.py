"""orpo_ray: ORPO-Distill (arXiv 2509.25100) as a distributed service on Ray."""

__version__ = "0.1.0"
