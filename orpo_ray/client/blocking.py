"""The client for ordinary programs; `AsyncClient` is its twin for event loops."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from orpo_ray.client import operations
from orpo_ray.client.address import dashboard_address, find_token
from orpo_ray.client.either import Operations
from orpo_ray.client.files import What
from orpo_ray.client.jobs import Placement
from orpo_ray.client.local import LocalCluster
from orpo_ray.client.operations import Configuration, Submission
from orpo_ray.client.result import RunResult
from orpo_ray.client.status import RunStatus
from orpo_ray.client.steps import Blocking

if TYPE_CHECKING:
    from orpo_ray.traces.record import Trace


class Client:
    """Submits runs to a Ray cluster, and tells what becomes of them.

        with orpo_ray.Client("http://HEAD:8265") as client:
            run = client.submit("run.yaml")
            run.wait()
            print(run.result().path)

    It talks to Ray's Jobs API on the cluster's dashboard, or to a service (`orpo-ray serve`), over HTTP; Ray is not started
    here, nor imported.

    Args:
        address: of the dashboard, as http://HEAD:8265, or of a service, which is told apart by what answers;
            RAY_API_SERVER_ADDRESS, RAY_ADDRESS or this machine's dashboard where left out.
        token: of the service, or of the cluster; RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or Ray's own file of this user
            where left out.

    Raises:
        InputError: the address is none of a dashboard.
        ClusterUnreachableError, NotAuthorisedError, ClusterError: of every method, when it asks the cluster.
    """

    def __init__(self, address: str | None = None, token: str | None = None) -> None:
        self.address = dashboard_address(address)
        found = find_token(token, self.address)
        self._http = Blocking(self.address, {"Authorization": f"Bearer {found}"} if found else {})
        self._operations = Operations()
        self._cluster: LocalCluster | None = None

    @classmethod
    def local(cls, cpus: int | None = None) -> "Client":
        """A client with a Ray cluster of its own on this machine, which ends with it.

        The cluster listens on this machine only, wants a random token, and leaves another cluster here alone. Relative
        paths in a configuration are then the caller's, as on the command line.

        Args:
            cpus: logical CPUs that Ray is told of; what engines and workers share need not be there in metal. The
                cores, or 16 if more, where left out.

        Raises:
            ClusterError: Ray did not start; says what it said.
        """
        cluster = LocalCluster(cpus)
        try:
            client = cls(cluster.address, cluster.token)
        except BaseException:
            cluster.close()
            raise
        client._cluster, client._operations = cluster, Operations(is_cluster=True)
        return client

    def submit(
        self,
        config: Configuration,
        *,
        fresh: bool = False,
        driver: Placement | None = None,
        working_dir: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> "Run":
        """Submit a run. The same name and storage go on where the last submission stopped.

        Args:
            config: a YAML file, a mapping of sections, or a checked configuration.
            fresh: remove what the run's distillation left, and start it anew; traces are kept.
            driver: where the driver goes; on the head where left out.
            working_dir: a directory to send along, for a task of one's own; hidden files stay here.
            env: environment variables of driver and workers; names that look like a secret's are refused.

        Raises:
            ConfigError, InputError: the configuration is at fault, with every mistake in it.
            RefusedError: another job works on this run.
        """
        how = Submission(fresh, driver, Path(working_dir) if working_dir else None, env)
        return Run(self, self._http.finish(self._operations.submit(config, how, self._here)))

    def runs(self) -> "list[Run]":
        """The runs that the cluster remembers, oldest first; those of a plain `ray job submit` among them."""
        return [Run(self, identity) for identity in self._http.finish(self._operations.runs())]

    def run(self, id: str) -> "Run":
        """The run of this id, or the newest of this name.

        Raises:
            UnknownRunError: there is none.
        """
        return Run(self, self._http.finish(self._operations.find(id)))

    def ray_version(self) -> str:
        """The version of Ray on the cluster; also the cheapest way to see that it is reached."""
        return self._http.finish(self._operations.ray_version())

    def close(self) -> None:
        """Close connections; a cluster of `Client.local` ends, and its runs with it."""
        self._http.close()
        if self._cluster is not None:
            self._cluster.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    @property
    def _here(self) -> operations.Here | None:
        return None if self._cluster is None else self._cluster.here


class Run:
    """A run on a cluster.

    What its files say (`metrics`, `events`, `traces`, `result`) is read here, where its storage is a directory that this
    machine sees; else by a small job on the cluster's head, which takes some seconds.

    Attributes:
        id: of its job.
    """

    def __init__(self, client: Client, id: str) -> None:
        self._client, self.id = client, id
        self._http, self._operations = client._http, client._operations

    def status(self) -> RunStatus:
        """Where it stands: state, phase, and why it failed."""
        return self._http.finish(self._operations.status(self.id))

    def wait(self, timeout: float | None = None) -> RunStatus:
        """Wait until it is over: done, or stopped.

        Args:
            timeout: seconds; without end where left out.

        Raises:
            RefusedError: its configuration, models or data were refused.
            RunFailedError: it failed; the error knows the phase and the reason.
            WaitTimeout: it works on.
        """
        return self._http.finish(self._operations.wait(self.id, timeout))

    def logs(self, follow: bool = False) -> Iterator[str]:
        """What it has printed, in pieces; with `follow`, also what it prints until it is over."""
        return self._http.stream(self._operations.follow(self.id, on=follow))

    def metrics(self) -> list[dict[str, Any]]:
        """One line an optimizer step, of the committed lineage."""
        return self._lines(What.METRICS)

    def events(self) -> list[dict[str, Any]]:
        """What happened, in order: `time`, `kind`, and what belongs to the kind."""
        return self._lines(What.EVENTS)

    def traces(self, source: Literal["teacher", "student"] = "teacher", limit: int | None = None) -> "list[Trace]":
        """Stored traces with their verdicts: the teacher's, or the initial student's; none before their phase is done.

        Args:
            limit: at most so many; all where left out.
        """
        from orpo_ray.traces.record import Trace

        return [Trace(**line) for line in self._lines(What(f"{source}-traces"), limit)]

    def stop(self) -> RunStatus:
        """Stop it, and wait until it has ended. What is finished is kept; submitted again, it goes on.

        Raises:
            WaitTimeout: it did not end in time.
        """
        return self._http.finish(self._operations.stop(self.id))

    def result(self) -> RunResult:
        """The exported student, and the table of evaluations.

        Raises:
            RefusedError, RunFailedError: as `wait`.
            RunNotFinishedError: it is not done.
        """
        return self._http.finish(self._operations.result(self.id, self._client._here))

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    def _lines(self, what: What, limit: int | None = None) -> list[dict[str, Any]]:
        return self._http.finish(self._operations.lines(self.id, what, limit, self._client._here))
