"""The image, as far as it can be made without Docker: the Dockerfile's COPY and RUN lines, followed in an empty directory.

What comes out is run as user 1000 on a root that cannot be written, as the manifests in deploy/ run it.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def steps() -> Iterator[tuple[str, list[str]]]:
    """`copy` (sources and target) and `run` (a command of scripts/) in the Dockerfile's order, without the system's."""
    text = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "COPY" and not rest.startswith("--from"):
            yield "copy", shlex.split(rest)
        elif instruction == "RUN" and "scripts/create_venv.py" in rest:
            for command in rest.replace("${ACCELERATOR}", "cpu").split("&&"):
                yield "run", shlex.split(command)


def copy(sources: list[str], target: Path) -> None:
    for source in sources:
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.name)


def run(words: list[str], image: Path) -> None:
    settings = dict(word.split("=", 1) for word in words if re.fullmatch(r"[A-Z_]+=.*", word))
    command = words[len(settings) :]
    command[0] = {"python": sys.executable}.get(command[0], str(image / command[0]))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, cwd=image, env=environment | settings, check=True)


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """What lies at /opt/orpo-ray in the image; not below pytest's own directory, which others may not pass through."""
    with tempfile.TemporaryDirectory(prefix="orpo-ray-image-") as folder:
        Path(folder).chmod(0o755)
        place = Path(folder) / "opt" / "orpo-ray"
        place.mkdir(parents=True)
        for kind, words in steps():
            if kind == "copy":
                copy(words[:-1], place / words[-1])
            else:
                run(words, place)
        yield place


PROGRAM = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0700,uid=1000,gid=1000 tmpfs "$HOME_PLACE"
mount -t tmpfs -o mode=1777,size=2g tmpfs /dev/shm
if [ -n "$CLOSED" ]; then
    # The Python that the environment stands on lies where only root may look; in the image it does not.
    mkdir "$HOME_PLACE/base"
    mount --bind "$BASE" "$HOME_PLACE/base"
    mount -t tmpfs -o mode=0755 tmpfs "$CLOSED"
    mkdir -p "$BASE"
    mount --move "$HOME_PLACE/base" "$BASE"
fi
# A root that cannot be written, but for what the manifests mount.
mount -o remount,bind,ro /
cd "$HOME_PLACE"
exec setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs --bounding-set=-all env -i \
    HOME="$HOME_PLACE" TMPDIR="$HOME_PLACE" PATH="$IMAGE/.venv/bin:/usr/bin:/bin" RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 \
    OMP_NUM_THREADS=1 bash -euc "$COMMAND"
"""


def closed_above(folder: Path) -> Path | None:
    """The outermost directory above `folder` that others may not pass through."""
    return next((each for each in reversed(folder.parents) if not each.stat().st_mode & 0o001), None)


# Over which the home is mounted, in a namespace of its own: a short path, as Ray's sockets need.
HOME = "/mnt"


def as_user(image: Path, command: str) -> str:
    """Output of `command`, run as user 1000 with nothing writable but its home and /dev/shm."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("a mount namespace of its own needs root, unshare and setpriv")
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", PROGRAM],
        env=os.environ
        | {"IMAGE": str(image), "COMMAND": command, "HOME_PLACE": HOME}
        | {"BASE": sys.base_prefix, "CLOSED": str(closed_above(Path(sys.base_prefix)) or "")},
        capture_output=True,
        text=True,
        timeout=280,
    )
    if "unshare: " in done.stderr and "not permitted" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_the_image_has_the_program_and_not_the_tests(image: Path) -> None:
    bin_ = image / ".venv" / "bin"
    assert (bin_ / "orpo-ray").exists()
    assert (bin_ / "ray").exists()
    for program in ("pytest", "mypy", "ruff"):
        assert not (bin_ / program).exists()
    assert list((image / "orpo_ray" / "cli" / "__pycache__").glob("app.*.pyc"))
    assert not (image / "tests").exists()


@pytest.mark.slow
def test_user_1000_works_on_a_root_that_cannot_be_written(image: Path) -> None:
    config = image / "orpo_ray" / "demo" / "demo.yaml"
    said = as_user(
        image,
        f"id -u; orpo-ray --version; orpo-ray plan {config} > /dev/null; touch {image}/x 2>&1 || echo read-only; "
        "python -c 'import vllm, deepspeed, ray.serve.llm' 2>/dev/null && echo imported",
    )
    assert said.splitlines()[0] == "1000"
    assert "orpo-ray 0." in said
    assert "read-only" in said
    assert "imported" in said


@pytest.mark.slow
def test_ray_starts_as_kuberay_starts_it_and_its_probe_answers(image: Path) -> None:
    """`ray start` with the head's parameters, a token, and the path of the probes on the agent's port."""
    said = as_user(
        image,
        "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=planted-token; ulimit -n 65536 || true; "
        "ray start --head --num-cpus=0 --dashboard-host=0.0.0.0 --object-store-memory=100000000 --port=6479 "
        "--dashboard-port=8365 --dashboard-agent-listen-port=52465 --metrics-export-port=8180 --temp-dir=$HOME/r "
        "--labels=orpo-ray.io/role=driver > start.log 2>&1 || { cat start.log; exit 1; }; "
        "for turn in $(seq 60); do "
        "python -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:52465/api/healthz').status)\" "
        "2>/dev/null && break; sleep 1; done; "
        "python -c \"import urllib.request as u; u.urlopen('http://127.0.0.1:8365/api/jobs/')\" 2>&1 | tail -1; "
        "ray stop --force > /dev/null 2>&1; ! grep -r planted-token start.log",
    )
    assert "200" in said.splitlines()
    assert "401" in said or "403" in said
