"""Which placement groups a killed controller has left behind."""

from typing import Any

from orpo_ray.phases.leftovers import left_over

JOB, OTHER = "0a000000", "0b000000"


def group(*bundles: dict[str, float], state: str = "CREATED") -> dict[str, Any]:
    return {"bundles": dict(enumerate(bundles)), "state": state}


def test_only_the_jobs_own_new_worker_group_is_left_over() -> None:
    worker = {"CPU": 1.0, "GPU": 1.0}
    before = {f"aa{JOB}": group(worker, worker)}
    after = before | {
        f"bb{JOB}": group(worker, worker),
        f"cc{JOB}": group(worker, worker, state="PENDING"),
        f"dd{JOB}": group(worker, worker, state="REMOVED"),
        f"ee{OTHER}": group(worker, worker),
        f"ff{JOB}": group(worker),
        f"00{JOB}": group({"CPU": 1.0}, {"CPU": 1.0}),
    }
    found = left_over(before, after, JOB, 2, {"CPU": 1, "GPU": 1})
    assert found == [f"bb{JOB}", f"cc{JOB}"]


def test_what_a_worker_asks_nothing_of_is_in_no_bundle() -> None:
    assert left_over({}, {f"aa{JOB}": group({"CPU": 2.0})}, JOB, 1, {"CPU": 2, "GPU": 0}) == [f"aa{JOB}"]
