"""Ray's Jobs REST API, as much of it as runs need. Plain HTTP: `ray.job_submission` would import all of Ray."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orpo_ray.client.errors import ClusterError, ClusterUnreachableError, NotAuthorisedError
from orpo_ray.client.steps import Answer, Request, Steps


@dataclass(frozen=True)
class Placement:
    """Where the driver of a run goes. With none of it, Ray starts it on the head.

    Attributes:
        cpus: logical CPUs that are kept for it.
        resources: custom resources, as `{"driver": 1}`.
        labels: Ray node labels that its node must have, as `{"orpo-ray.io/role": "driver"}`.
    """

    cpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields of a submission; what is not asked is left out."""
        asked = {
            "entrypoint_num_cpus": self.cpus,
            "entrypoint_resources": dict(self.resources),
            "entrypoint_label_selector": dict(self.labels),
        }
        return {name: value for name, value in asked.items() if value}


@dataclass(frozen=True)
class Job:
    """One job, as Ray tells of it.

    Attributes:
        id: the submission id.
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: Ray's own sentence.
        exit_code: of the driver; None while it works, and where it was killed.
        started, ended: milliseconds since the epoch.
        node: the Ray node that the driver works on; None until it has one.
    """

    id: str
    status: str
    message: str
    entrypoint: str
    metadata: Mapping[str, str]
    exit_code: int | None
    started: int | None
    ended: int | None
    node: str | None

    @property
    def over(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Job":
        return cls(
            id=data["submission_id"],
            status=data["status"],
            message=data.get("message") or "",
            entrypoint=data.get("entrypoint") or "",
            metadata=data.get("metadata") or {},
            exit_code=data.get("driver_exit_code"),
            started=data.get("start_time"),
            ended=data.get("end_time"),
            node=data.get("driver_node_id"),
        )


def ray_version() -> Steps[str]:
    """The cluster's version of Ray."""
    return str((yield from _json(Request("GET", "/api/version")))["ray_version"])


def submit_job(submission: Mapping[str, Any]) -> Steps[str]:
    """Submit a job; its id."""
    return str((yield from _json(Request("POST", "/api/jobs/", json=submission)))["submission_id"])


def job(identity: str) -> Steps[Job | None]:
    """The job with a submission id; None where there is none."""
    answer = yield from _answered(Request("GET", f"/api/jobs/{identity}"))
    if answer.status == 404:
        return None
    return Job.from_json(_parsed(answer))


def submitted_jobs() -> Steps[list[Job]]:
    """All jobs that were submitted, oldest first. Drivers that connected by themselves are not among them."""
    found = yield from _json(Request("GET", "/api/jobs/"))
    jobs = [Job.from_json(data) for data in found if data.get("type") == "SUBMISSION" and data.get("submission_id")]
    return sorted(jobs, key=lambda job: job.started or 0)


def job_log(identity: str) -> Steps[str]:
    """All that the driver has printed."""
    return str((yield from _json(Request("GET", f"/api/jobs/{identity}/logs"))).get("logs") or "")


def stop_job(identity: str) -> Steps[bool]:
    """Ask a job to stop; whether it was running."""
    return bool((yield from _json(Request("POST", f"/api/jobs/{identity}/stop")))["stopped"])


def delete_job(identity: str) -> Steps[None]:
    """Let the cluster forget a job that is over."""
    yield from _answered(Request("DELETE", f"/api/jobs/{identity}"))


def upload_package(name: str, content: bytes) -> Steps[str]:
    """Put a zip file, named by its content, on the cluster, unless it is there; its URI."""
    path = f"/api/packages/gcs/{name}"
    answer = yield from _answered(Request("GET", path))
    if answer.status == 404:
        answer = yield from _answered(Request("PUT", path, content=content))
    _check(answer)
    return f"gcs://{name}"


def _json(request: Request) -> Steps[Any]:
    return _parsed((yield from _answered(request)))


def _answered(request: Request) -> Steps[Answer]:
    answer: Answer = yield request
    if answer.status == 401:
        raise NotAuthorisedError(
            "not authorised: the cluster wants a token, and none was sent; put it into RAY_AUTH_TOKEN, or its file's "
            "path into RAY_AUTH_TOKEN_PATH (on the head, `ray get-auth-token` prints it)"
        )
    if answer.status == 403:
        raise NotAuthorisedError(
            "not authorised: the cluster has another token than the one that was sent; see RAY_AUTH_TOKEN, "
            "RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token"
        )
    return answer


def _parsed(answer: Answer) -> Any:
    _check(answer)
    try:
        return json.loads(answer.text)
    except ValueError:
        raise ClusterUnreachableError(
            "what answers is no Ray dashboard (it sends no JSON); give the address of the head's port 8265"
        ) from None


def _check(answer: Answer) -> None:
    if answer.status == 404 and "does not exist" not in answer.text:
        raise ClusterUnreachableError(
            "what answers is no Ray dashboard with a Jobs API (404); give the address of the head's port 8265"
        )
    if answer.status >= 400:
        # A traceback's last line says what happened.
        lines = [line for line in answer.text.splitlines() if line.strip()] or ["nothing"]
        raise ClusterError(f"the cluster answered {answer.status}: {lines[-1].strip()[:500]}")
