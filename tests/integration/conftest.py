"""One local Ray cluster for every integration test of a session."""

from collections.abc import Iterator

import pytest

from tests.tiny.cluster import start_ray


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray cluster of this test session alone, whatever else runs on the machine."""
    import ray

    start_ray()
    yield
    ray.shutdown()
