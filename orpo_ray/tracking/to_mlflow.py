"""MLflow: a server, a database, or a directory beside the run."""

import os
import time
from collections.abc import Mapping
from typing import Any

# MLflow refuses a longer one.
_LONGEST_PARAMETER = 6000


class MLflow:
    """A `Tracker`; one run in MLflow for a run of ours, however often that is started.

    Args:
        uri: MLflow's tracking URI.
        experiment: that the run belongs to.
        options: the configuration, as flat `section.option` names.
        known: the id of the run in MLflow, where an earlier start made it.
    """

    def __init__(self, uri: str, experiment: str, name: str, options: Mapping[str, Any], known: str | None) -> None:
        if uri.startswith("file:"):
            # Where no server is asked for a directory is what it shall be; MLflow wants that said.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=uri)
        if known is not None:
            self.run_id = known
            self._client.update_run(known, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found is not None else self._client.create_experiment(experiment)
        self.run_id = str(self._client.create_run(number, run_name=name).info.run_id)
        parameters = [Param(key, str(value)[:_LONGEST_PARAMETER]) for key, value in options.items()]
        for first in range(0, len(parameters), 100):  # as many as one request takes
            self._client.log_batch(self.run_id, params=parameters[first : first + 100])

    def log(self, values: Mapping[str, float], step: int) -> None:

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self.run_id)
