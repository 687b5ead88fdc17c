"""The teacher as a Ray Data pipeline: blocks of prompts in, counts of judged traces out.

    block numbers ─► TeacherCaller ──HTTP──► teacher
                          │ completions
                          ▼
                     TeacherJudge: verify, ROUGE-L filter ─► traces/teacher-<key>.partial/part-….parquet
                          │ counts
                          ▼
                        driver

The driver sees counts only, so its memory does not grow with the data.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset

from orpo_ray.config.models import TeacherConfig
from orpo_ray.teacher.access import TeacherAccess
from orpo_ray.teacher.caller import BLOCK_PROMPTS, BLOCKS, TeacherCaller
from orpo_ray.teacher.judging import Judging, TeacherJudge
from orpo_ray.teacher.on_serve import NODE_LABEL


def judged_blocks(
    teacher: TeacherConfig, judgings: Sequence[Judging], access: TeacherAccess, blocks: Sequence[tuple[int, int]]
) -> Dataset:
    """The pipeline, not yet running: one line (`asking`, and the fields of TraceCounts) for each of `blocks`.

    Args:
        blocks: (place in `judgings`, block of its asking), in the order in which they are asked.
    """
    # Else Ray Data wraps what an actor raises, and pickling then loses the error of ours inside.
    DataContext.get_current().raise_original_map_exception = True
    clients = teacher.clients
    # Enough blocks that the bound on requests, not a block's last trace, is what a client waits for.
    in_flight = 2 + teacher.concurrency // clients // BLOCK_PROMPTS
    # The head alone reaches a teacher on its loopback address, and many a head offers no CPU: a client there, which only
    # waits for HTTP, asks for none. Elsewhere it asks for a little, so that Ray does not put it on such a head.
    asked = _lines(blocks).map_batches(
        TeacherCaller,
        fn_constructor_args=([judging.asking for judging in judgings], access, clients),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=clients, max_tasks_in_flight_per_actor=in_flight, max_concurrent_calls_per_actor=in_flight
        ),
        num_cpus=0.1 if access.node is None else 0,
        label_selector={NODE_LABEL: access.node} if access.node is not None else None,
    )
    return asked.map_batches(
        TeacherJudge,
        fn_constructor_args=(judgings,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=clients),
        num_cpus=0.5,
    )


def _lines(blocks: Sequence[tuple[int, int]]) -> Dataset:
    """`blocks` as a Dataset of `BLOCKS`, one line a block: read in a few tasks and cut lazily, as one task each costs."""
    places = ray.data.range(len(blocks), override_num_blocks=min(4, len(blocks)))
    lines = places.map_batches(_Pick(blocks), batch_format="pyarrow")
    return lines.repartition(target_num_rows_per_block=1, strict=True)


class _Pick:
    """From places in a list to what is listed there."""

    def __init__(self, blocks: Sequence[tuple[int, int]]) -> None:
        self._blocks = np.asarray(blocks, dtype=np.int64).reshape(-1, 2)

    def __call__(self, batch: pa.Table) -> pa.Table:
        picked = self._blocks[batch.column("id").to_numpy()]
        return pa.table([picked[:, 0], picked[:, 1]], schema=BLOCKS)
