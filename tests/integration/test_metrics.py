"""What a run gives to Ray's metrics is what Prometheus reads from a node, name by name, from driver and workers alike."""

import re
import time
import urllib.request
from typing import Any

import pytest

from orpo_ray.tracking.meter import RUN_VARIABLE, record
from orpo_ray.tracking.quantities import QUANTITIES

# slow: until it is seen to pass on an idle machine; what Ray forgets after 20 s takes its time to be shown.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]
_WAIT_S = 90.0


class Worker:
    """An actor that gives one value of every quantity."""

    def give(self) -> int:
        for name, quantity in QUANTITIES.items():
            record(name, 3.0, **{"phase": quantity.phase or "teach", **dict.fromkeys(quantity.tags, "worker")})
        return len(QUANTITIES)


def scraped() -> str:
    """The text that Prometheus gets from the one node."""
    import ray

    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode())


def samples(text: str, run: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples of one run by name, in Prometheus' text format."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(ray_orpo_\w+)\{(.*)\} (\S+)", line)
        if match is None:
            continue
        tags = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
        if tags.get("run") == run:
            found.setdefault(match[1], []).append((tags, float(match[3])))
    return found


def expected() -> set[str]:
    """The names that dashboard and alerts ask for."""
    names = set()
    for quantity in QUANTITIES.values():
        endings = ("_bucket", "_sum", "_count") if quantity.kind == "histogram" else ("",)
        names |= {quantity.exported + ending for ending in endings}
    return names


def test_every_quantity_is_read_from_the_node_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv(RUN_VARIABLE, "measured")
    actor: Any = ray.remote(Worker).options(runtime_env={"env_vars": {RUN_VARIABLE: "measured"}}).remote()
    assert ray.get(actor.give.remote(), timeout=60) == len(QUANTITIES)
    record("orpo_phase_running", 1.0, phase="driver")
    limit = time.monotonic() + _WAIT_S
    while True:
        found = samples(scraped(), "measured")
        phases = {tags["phase"] for tags, _ in found.get("ray_orpo_phase_running", ())}
        if expected() <= found.keys() and phases == {"teach", "driver"}:
            break
        missing = sorted(expected() - found.keys())
        assert time.monotonic() < limit, f"after {_WAIT_S:g} s: {missing} of {sorted(found)}; phases {phases}"
        time.sleep(1)
    # Ray forgets a gauge after two report intervals, 20 s; a value that was given once is there all the same.
    time.sleep(25)
    assert expected() <= samples(scraped(), "measured").keys()
    for quantity in QUANTITIES.values():
        name = quantity.exported + ("_sum" if quantity.kind == "histogram" else "")
        of_worker = [(tags, value) for tags, value in found[name] if tags["phase"] != "driver"]
        ((tags, value),) = of_worker
        assert value == 3.0, quantity
        assert all(tags[tag] == "worker" for tag in quantity.tags)
