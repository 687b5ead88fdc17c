"""The plan, the matching and the pair groups: pure functions of the seed."""

from orpo_ray.pairs.group import LiveCounts, PairGroup, build_group, from_table, to_table
from orpo_ray.pairs.matching import match
from orpo_ray.pairs.phi import Diversity, PhiRule
from orpo_ray.pairs.plan import Plan, PlanRow
from orpo_ray.pairs.source import PairSource, SourcePrompt, write_pair_source

__all__ = [
    "Diversity",
    "LiveCounts",
    "PairGroup",
    "PairSource",
    "PhiRule",
    "Plan",
    "PlanRow",
    "SourcePrompt",
    "build_group",
    "from_table",
    "match",
    "to_table",
    "write_pair_source",
]
