"""Runs in MLflow."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mer_zoo.errors import MerZooError
from mer_zoo.parts.tracker.base import imported
from mer_zoo.results.run import Run

ID = "mer_zoo.run"
AT_ONCE = {"params": 100, "metrics": 1000}
"""How many a request may hold."""
LONGEST = 250, 5000
"""Characters of a name and of a text."""


class Mlflow:
    """A run in MLflow for each run: settings as parameters, epochs and scores as metrics, the files as artifacts.

    A run of the same id is deleted first, the way MLflow deletes: it can be restored. Of MLflow's own variables those
    count that say who you are (`MLFLOW_TRACKING_USERNAME`, `_PASSWORD`, `_TOKEN`) and how to ask
    (`MLFLOW_HTTP_REQUEST_...`); where to log is decided by the settings alone. MLflow reports nothing of its use unless
    `MLFLOW_DISABLE_TELEMETRY` is set to `false`.

    Args:
        results: folder of the result files (a fact).
        experiment: of MLflow, made if it is not there.
        address: of the server or database, such as `http://host:5000`; by default a database of SQLite, and the files,
            in `mlflow` beside the result files, and no network is touched.

    Raises:
        MerZooError: MLflow is not installed, or the address cannot be used.
    """

    def __init__(self, results: str, *, experiment: str = "mer_zoo", address: str | None = None) -> None:
        # read when MLflow is imported
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        self._mlflow = imported("mlflow")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        files = None
        if address is None:
            folder = Path(results, "mlflow").resolve()
            folder.mkdir(parents=True, exist_ok=True)
            address, files = f"sqlite:///{(folder / 'mlflow.db').as_posix()}", (folder / "files").as_uri()
            imported("sqlalchemy")
            imported("alembic")
        try:
            self._client = self._mlflow.MlflowClient(tracking_uri=address)
            self._experiment = self._opened(experiment, files)
        except Exception as error:  # MLflow raises its own, and those of whatever it stands on
            raise MerZooError(f"MLflow cannot use {address}: {str(error).splitlines()[0]}") from None

    def _opened(self, experiment: str, files: str | None) -> str:
        """Return the id of an experiment; `files` is where those of a new one go."""
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            return str(self._client.create_experiment(experiment, files))
        if found.lifecycle_stage != "active":
            raise MerZooError(f"experiment '{experiment}' was deleted. Restore it, or give another name.")
        return str(found.experiment_id)

    def log(self, run: Run) -> None:
        """Make a run of MLflow, instead of an earlier one of the same id."""
        client, entities = self._client, self._mlflow.entities
        for earlier in client.search_runs([self._experiment], f"tags.`{ID}` = '{run.id}'"):
            client.delete_run(earlier.info.run_id)
        end = int(1000 * (run.finished.timestamp() if run.finished else time.time()))
        tags = {ID: run.id} | ({"mer_zoo.failure": run.failure[: LONGEST[1]]} if run.failure else {})
        made = client.create_run(self._experiment, end - int(1000 * run.seconds), tags, run.name[: LONGEST[0]])
        measured = [(step, numbers) for step, numbers in run.epochs.items()] + [(run.chosen_epoch or 0, run.measures)]
        metrics = [entities.Metric(k, v, end, step) for step, numbers in measured for k, v in _named(numbers).items()]
        params = [entities.Param(key, str(value)[: LONGEST[1]]) for key, value in _named(run.settings).items()]
        for kind, every in (("params", params), ("metrics", metrics)):
            for start in range(0, len(every), AT_ONCE[kind]):
                client.log_batch(made.info.run_id, **{kind: every[start : start + AT_ONCE[kind]]}, synchronous=True)
        with tempfile.TemporaryDirectory() as folder:
            for name, path in run.files.items():
                client.log_artifact(made.info.run_id, shutil.copyfile(path, Path(folder, name)))
        client.set_terminated(made.info.run_id, "FAILED" if run.failure else "FINISHED", end)


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by names as MLflow takes them, no two alike."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        parts = re.sub(r"[^\w.\- /]", "_", key).split("/")
        name = "/".join(part for part in parts if part.strip("."))[: LONGEST[0]] or "_"
        found[name if name not in found else f"{name[: LONGEST[0] - 10]}_{len(found)}"] = value
    return found
