"""A Ray cluster of one test session, or of one run that a test kills."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
_STARTS = 4


def start_ray(cpus: int = 8) -> None:
    """Start Ray here, whatever else runs on the machine; its workers find the tests' own tasks."""
    import ray
    import ray.data

    for start in range(1, _STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=300 << 20,
                log_to_driver=False,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}},
            )
            break
        except Exception:
            # Ray gives its own processes 30 s to start, whatever the machine is busy with.
            ray.shutdown()
            if start == _STARTS:
                raise
    ray.data.DataContext.get_current().enable_progress_bars = False
