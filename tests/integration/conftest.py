"""One local Ray cluster for every integration test of a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray cluster of this test session alone, whatever else runs on the machine."""
    import ray
    import ray.data

    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=300 << 20,
        log_to_driver=False,
        # The workers import the tests' own tasks.
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
