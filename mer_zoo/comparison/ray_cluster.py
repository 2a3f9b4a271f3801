"""Runs on a Ray cluster: Ray schedules, moves data and replaces lost workers; this process alone writes files.

A worker needs mer_zoo installed and nothing else: dialogues travel through Ray's object store, once per machine, and
what a run leaves comes back the same way. No storage needs to be shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mer_zoo import registry
from mer_zoo.comparison.executing import Attempt, Failure, Stack
from mer_zoo.comparison.workers import TRIES, Lost
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.loading import load
from mer_zoo.errors import MerZooError
from mer_zoo.results.result import SUFFIX
from mer_zoo.results.writing import write_atomically
from mer_zoo.training.checkpoint import SUFFIX as CHECKPOINT
from mer_zoo.training.experiment import Experiment

Work = Callable[[Path, Stack], Attempt]


@dataclass(frozen=True)
class RayCluster:
    """Runs every stack of experiments as a Ray task (Moritz et al., OSDI 2018).

    Attributes:
        address: of the cluster: `auto` for the one this machine is part of, `host:6379`, `ray://host:10001`; None: a
            cluster of this machine alone, for the time of the suite.
        cpus: processors of a run; a fraction lets several runs share one.
        gpus: GPUs of a run; a fraction lets several runs share one.

    Raises:
        MerZooError: Ray is not installed, a share below 0, or no cluster answers.

    Example:
        >>> RayCluster(gpus=-1)
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: --gpus -1: want 0 or more, such as 0.25 for four runs on a GPU.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, share in (("cpus", self.cpus), ("gpus", self.gpus)):
            if not 0 <= share < float("inf"):
                raise MerZooError(f"--{name} {share:g}: want 0 or more, such as 0.25 for four runs on a GPU.")
            if share > 1 and share != int(share):
                raise MerZooError(f"--{name} {share:g}: Ray takes whole numbers above 1. Use {int(share)}.")

    def __call__(self, work: Work, stacks: Sequence[Stack], folder: Path) -> Iterator[tuple[Stack, Attempt | Lost]]:
        """Do the work with every stack; yields each as soon as its files are in the folder."""
        ray, ours = self._connect()
        try:
            yield from self._spread(ray, work, stacks, folder)
        except ray.exceptions.RayError as error:
            raise MerZooError(f"Ray: {_first_line(error)} Finished results are kept; run it again to go on.") from None
        finally:
            if ours:
                ray.shutdown()

    def _connect(self) -> tuple[Any, bool]:
        """Return Ray, and whether its connection was made here."""
        try:
            import ray
        except ImportError:
            raise MerZooError("--executor ray needs Ray. Install it: pip install 'mer-zoo[ray]'.") from None
        if ray.is_initialized():
            return ray, False
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        here: dict[str, Any] = {} if self.address else {"include_dashboard": False}
        try:
            ray.init(address=self.address, **quiet, **here)
        except Exception as error:  # Ray raises many kinds, from ConnectionError to gRPC's own
            place = f"--address {self.address}" if self.address else "--executor ray"
            raise MerZooError(f"{place}: no Ray cluster ({_first_line(error)}) Start one with `ray start`.") from None
        self._check_resources(ray)
        return ray, True

    def _check_resources(self, ray: Any) -> None:
        """Refuse a share that no machine of the cluster has, for which Ray would wait without end."""
        most = [
            max((node["Resources"].get(name, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
            for name in ("CPU", "GPU")
        ]
        for name, share, there in zip(("cpus", "gpus"), (self.cpus, self.gpus), most, strict=True):
            if share > there:
                ray.shutdown()
                raise MerZooError(
                    f"--{name} {share:g}: the largest machine of the cluster has {there:g}. Ask for less."
                )

    def _spread(
        self, ray: Any, work: Work, stacks: Sequence[Stack], folder: Path
    ) -> Iterator[tuple[Stack, Attempt | Lost]]:
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": TRIES - 1}
        run = ray.remote(**options)(_run)
        data: dict[str, Any] = {}
        waiting = {}
        for stack in stacks:
            first = stack[0]
            if first.fingerprint not in data:
                data[first.fingerprint] = ray.put(first.data if isinstance(first.data, Dataset) else load(first.data))
            # the dialogues go by reference, beside experiments without them
            bare = [replace(one, data="") for one in stack]
            job = run.remote(work, bare, data[first.fingerprint], registry.session(), os.getcwd(), self.cpus)
            waiting[job] = stack
        try:
            while waiting:
                (job,), _ = ray.wait(list(waiting), num_returns=1)
                stack = waiting.pop(job)
                try:
                    attempt, files = ray.get(job)
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                    yield stack, Lost(f"its worker was lost, {TRIES} times ({_first_line(error)})")
                    continue
                except ray.exceptions.RayTaskError as error:
                    yield stack, Lost(f"its worker could not run it: {_first_line(error.cause or error)}")
                    continue
                for name in sorted(files, key=lambda name: name.endswith(SUFFIX)):  # the result vouches for the rest
                    write_atomically(folder / name, files[name])
                yield stack, _with_data(attempt, stack)
        finally:
            for job in waiting:
                with suppress(Exception):
                    ray.cancel(job, force=True)


def _run(
    work: Work, stack: Stack, data: Dataset, session: Mapping[Any, Any], folder: str, cpus: float
) -> tuple[Attempt, dict[str, bytes]]:
    """Do the work in a worker, and return what it answers and the files it wrote."""
    import torch

    registry.resume(session)
    torch.set_num_threads(max(1, int(cpus)))
    with suppress(OSError):  # where files of the user's own are shared, their relative paths mean the same
        os.chdir(folder)
    with TemporaryDirectory() as made:
        attempt = work(Path(made), [replace(one, data=data) for one in stack])
        files = {path.name: path.read_bytes() for path in Path(made).iterdir() if path.suffix != CHECKPOINT}
    return _with_data(attempt, stack), files


def _with_data(attempt: Attempt, stack: Stack) -> Attempt:
    """Return an answer whose failures hold the experiments of a stack, with their data or without."""
    known: dict[str, Experiment] = {one.identity.run: one for one in stack}
    return [(run, replace(x, experiment=known[run]) if isinstance(x, Failure) else x) for run, x in attempt]


def _first_line(error: object) -> str:
    """Return what an error says, in one line that ends as a sentence does."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()[:200]
    return line if line.endswith(".") else f"{line}."
