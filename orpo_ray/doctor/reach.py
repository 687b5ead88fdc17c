"""What a run reaches: its storage, its mirror, the cluster and its token, the teacher."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from orpo_ray.client import Client, ClusterUnreachableError, NotAuthorisedError
from orpo_ray.client.address import is_loopback
from orpo_ray.client.openness import answers_without_token
from orpo_ray.config.models import TeacherConfig
from orpo_ray.doctor.finding import Finding, fault, ok, warning
from orpo_ray.doctor.packages import installed_version
from orpo_ray.errors import InputError, OrpoRayError
from orpo_ray.mirror import open_place
from orpo_ray.phases.needs import GIB

_ANSWER_S = 10.0


def check_storage(path: Path) -> Finding:
    """Everything that a run does on its storage and an object store or a bad mount cannot: rename, append, lock."""
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=path) as directory:
            place = Path(directory)
            (place / "a.partial").mkdir()
            with (place / "a.partial" / "file").open("a") as file:
                file.write("1")
                file.flush()
                os.fsync(file.fileno())
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (place / "a.partial").rename(place / "a")
            with (place / "a" / "file").open("a") as file:
                file.write("2")
            if (place / "a" / "file").read_text() != "12":
                return fault("storage", f"{path} does not append", "take a file system: a mounted bucket is none")
    except OSError as error:
        cure = (
            "give a storage.path that this user may write to, on a file system that renames directories and locks files"
        )
        return fault("storage", f"{path}: {error.strerror or error}", cure)
    free = shutil.disk_usage(path).free
    if made:  # an examination leaves nothing behind
        path.rmdir()
    return ok("storage", f"{path} can be written; {free / GIB:.1f} GiB free")


def check_mirror(url: str) -> Finding:
    """Whether a run's files can be written to its mirror, read again and removed."""
    try:
        open_place(url).check()
    except InputError as error:
        found, _, cure = str(error).removeprefix("storage.mirror: ").rpartition("; ")
        return fault("mirror", found, cure)
    return ok("mirror", f"{url} can be written, read and cleared")


def check_token() -> Finding:
    """Whether clusters that are started here ask for a token, and whether others may read it."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode and mode.lower() != "token":
        return fault(
            "token", f"RAY_AUTH_MODE={mode}: whoever reaches a cluster started here runs code on it (CVE-2023-48022)",
            "unset RAY_AUTH_MODE, or set it to token",
        )  # fmt: skip
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return ok("token", "from RAY_AUTH_TOKEN")
    try:
        mode_bits = file.stat().st_mode
    except OSError as error:
        if named:
            return fault(
                "token", f"RAY_AUTH_TOKEN_PATH: {file}: {error.strerror}", "name a file that this user may read"
            )
        return ok("token", f"none yet; Ray writes one to {file} for the first cluster here")
    if mode_bits & (stat.S_IRGRP | stat.S_IROTH) and _others_come_to(file.parent):
        return warning("token", f"{file} may be read by other users of this machine", f"chmod 600 {file}")
    return ok("token", f"in {file}")


def check_cluster(address: str | None) -> Iterator[Finding]:
    """Whether a cluster is reached, lets this user in and nobody else, and has the same Ray.

    Raises:
        InputError: the address is none.
    """
    with Client(address) as client:
        try:
            version = client.ray_version()
            client.runs()
        except NotAuthorisedError as error:
            yield fault("cluster", f"{client.address}: {error}", "give its token, as the message says")
            return
        except ClusterUnreachableError as error:
            yield fault("cluster", str(error), "start it, forward its port, or give another --address")
            return
        except OrpoRayError as error:
            yield fault("cluster", f"{client.address}: {error}", "look into the dashboard's log on the head")
            return
        own = installed_version("ray")
        if version != own:
            yield warning(
                "cluster", f"{client.address} has Ray {version}, here is {own}", "use one version on both sides"
            )
        else:
            yield ok("cluster", f"{client.address} answers, with Ray {version}")
        if answers_without_token(client.address):
            here = is_loopback(client.address)
            kind = warning if here else fault
            yield kind(
                "cluster's token",
                "it asks for none: whoever reaches it" + (", here every user," if here else "") + " runs code on it "
                "(CVE-2023-48022)",
                "start Ray with RAY_AUTH_MODE=token; KubeRay: authOptions.mode: token",
            )
        else:
            yield ok("cluster's token", "nobody gets in without it")


def check_teacher(teacher: TeacherConfig) -> Finding:
    """The API and its model, the model's directory, or the recorded traces."""
    if teacher.backend == "openai":
        return _api(teacher.base_url or "", teacher.model or "", teacher.api_key_env)
    given = teacher.model if teacher.backend == "serve" else teacher.path
    assert given is not None, "checked when the configuration is read"
    local = given.startswith((".", "/")) or Path(given).exists()
    if teacher.backend == "recorded" and given == "dataset":
        return ok("teacher", "the data set's own solutions")
    if not local:
        return ok("teacher", f"{given}, from the hub; this machine has not asked for it")
    if not Path(given).exists():
        option = "teacher.model" if teacher.backend == "serve" else "teacher.path"
        return fault("teacher", f"{given} is not there", f"set {option}; relative paths start at the working directory")
    return ok("teacher", given)


def _api(url: str, model: str, key_env: str | None) -> Finding:
    key = os.environ.get(key_env, "") if key_env else ""
    if key_env and not key:
        return fault("teacher", f"the environment variable {key_env} is not set", f"export {key_env}=…")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{url.rstrip('/')}/models", headers=headers, timeout=_ANSWER_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = str(error) or type(error).__name__
        return fault("teacher", f"{url} cannot be reached: {said}", "check teacher.base_url, and the way there")
    if answer.status_code in (401, 403):
        cure = f"check the key in {key_env}" if key_env else "name the key's variable with teacher.api_key_env"
        return fault("teacher", f"{url} refuses {'the key' if key else 'to answer without a key'}", cure)
    if answer.status_code != 200:
        # Some servers list no models and answer all the same.
        cure = "check teacher.base_url, which mostly ends with /v1"
        return warning("teacher", f"{url}/models answers {answer.status_code}", cure)
    try:
        models = [str(entry["id"]) for entry in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return warning("teacher", f"{url}/models is no list of models", "check teacher.base_url")
    if model not in models:
        return fault("teacher", f"{url} has no model {model!r}", f"take one of {', '.join(models[:8]) or 'none'}")
    return ok("teacher", f"{model} at {url}")


def _others_come_to(directory: Path) -> bool:
    """Whether other users may enter a directory, and all above it."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (directory, *directory.parents))
