"""Sums that note the Ray node on which each of their prompts is asked."""

import os
from pathlib import Path

from orpo_ray.tasks import Message, Row
from tests.tiny.sums import SumsTask

NODES = "ORPO_RAY_TEST_NODES"
"""Names the directory in which a file appears for each node that asked."""


class WhereTask(SumsTask):
    name = "where"

    def messages(self, row: Row) -> list[Message]:
        if directory := os.environ.get(NODES):
            import ray

            (Path(directory) / ray.get_runtime_context().get_node_id()).touch()
        return super().messages(row)
