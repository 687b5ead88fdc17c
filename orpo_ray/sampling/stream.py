"""The streaming Dataset of pair groups, one execution over all epochs, from any cursor.

What keeps it from hanging, each seen to hang without it (tests/integration/test_stream.py):
order comes from Train's own DataConfig; blocks are equal and `block_rows × ranks` divides the global batch; each epoch
is whole global batches; one row comes out for each row that goes in.
"""

from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import ActorPoolStrategy, Dataset, ExecutionOptions
from ray.train import DataConfig

from orpo_ray.config import Geometry, RunConfig
from orpo_ray.sampling.block_stats import ForgetBlockStats
from orpo_ray.sampling.executor_wait import ShorterWait
from orpo_ray.sampling.sampler import Sampler, SamplerSpec

# The source is read in a few tasks and cut lazily: one task a block costs memory and time with the length of the run.
_READ_TASKS = 4


def pair_stream(spec: SamplerSpec, board: Any, geometry: Geometry, first_row: int, sampler: type = Sampler) -> Dataset:
    """The stream of pair groups from `first_row` on.

    Args:
        board: handle of the WeightBoard actor.
        first_row: the cursor; a whole number of global batches.
        sampler: the callable class; tests put a fake engine behind it.
    """
    config: RunConfig = spec.config
    resources = config.resources
    source = ray.data.range(geometry.rows - first_row, override_num_blocks=_READ_TASKS)
    if first_row:
        source = source.map_batches(partial(_shift, first=first_row), batch_format="pyarrow")
    blocks = source.repartition(target_num_rows_per_block=geometry.block_rows, strict=True)
    groups = blocks.map_batches(
        sampler,
        fn_constructor_args=(spec, board),
        batch_size=geometry.block_rows,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=resources.samplers,
            max_tasks_in_flight_per_actor=resources.blocks_in_flight,
            max_concurrent_calls_per_actor=resources.blocks_in_flight,
        ),
        num_cpus=resources.sampler_cpus,
        num_gpus=resources.sampler_gpus or None,
        label_selector=resources.node_labels("sampler") or None,
        # Ray Data's own way is without end, as for an engine that dies of the same block each time. Ray 2.60 calls
        # options without a parameter of their own, as these two, deprecated, and has no other place for them.
        max_restarts=config.limits.failures,
        max_task_retries=config.limits.failures,
    )
    # Else Ray Data wraps what a sampler raises, and pickling then loses the error of ours inside.
    groups.context.raise_original_map_exception = True
    groups.context.custom_execution_callback_classes = [ForgetBlockStats, ShorterWait]
    return groups


def ordered_ingest() -> DataConfig:
    """How Train must split the stream: in order, block by block, without holding any back for locality."""
    return DataConfig(execution_options=ExecutionOptions(preserve_order=True), enable_shard_locality=False)


def _shift(batch: pa.Table, first: int) -> pa.Table:
    """Row indices from the cursor on."""
    return pa.table({"id": pc.add(batch.column("id"), first)})
