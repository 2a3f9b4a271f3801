"""Runs for Weights & Biases."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from mer_zoo.errors import MerZooError
from mer_zoo.parts.tracker.base import imported
from mer_zoo.results.run import Run
from mer_zoo.results.writing import check_writable


class Wandb:
    """A run of Weights & Biases for each run, in a folder that `wandb sync` uploads if you want; or on a server.

    Neither what the machine is, nor code, nor what is printed is logged. Of W&B's own variables `WANDB_API_KEY` counts,
    and those that settings leave open, such as `WANDB_ENTITY` and `WANDB_TAGS`; `WANDB_MODE`, `WANDB_PROJECT` and
    `WANDB_DIR` do not.

    Args:
        results: folder of the result files (a fact); the runs go into `wandb` beside them.
        project: of W&B.
        address: of a server, such as `https://api.wandb.ai`; by default W&B is offline, and no network is touched.

    Raises:
        MerZooError: W&B is not installed, or a server is given without a key.
    """

    def __init__(self, results: str, *, project: str = "mer_zoo", address: str | None = None) -> None:
        self._wandb = imported("wandb")
        if address is not None and not os.environ.get("WANDB_API_KEY"):
            raise MerZooError(f"{address} wants to know who you are. Set the variable WANDB_API_KEY.")
        self.results, self.project, self.address = Path(results), project, address

    def log(self, run: Run) -> None:
        """Write a run of W&B, instead of an earlier one of the same id."""
        check_writable(self.results)
        for earlier in self.results.glob(f"wandb/*run-*-{run.id}"):
            shutil.rmtree(earlier)
        hook = sys.excepthook
        server = {"mode": "offline"} if self.address is None else {"mode": "online", "base_url": self.address}
        made = self._wandb.init(
            config=dict(run.settings),
            settings=self._wandb.Settings(
                root_dir=str(self.results),
                project=self.project,
                run_id=run.id,
                run_name=run.name,
                run_group=str(run.settings.get("model", "")),
                resume="allow" if self.address else None,
                reinit="create_new",  # a run that the user has open goes on
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                **server,
            ),
        )
        try:
            for step, numbers in run.epochs.items():
                made.log(dict(numbers), step=step)
            made.summary.update({**run.measures, **({"failure": run.failure} if run.failure else {})})
            for name, path in run.files.items():
                made.save(shutil.copyfile(path, Path(made.dir, name)), base_path=made.dir, policy="now")
        finally:
            made.finish(exit_code=int(bool(run.failure)))
            sys.excepthook = hook  # W&B leaves its own there
        check_writable(self.results)  # W&B does not tell when it runs out of space
