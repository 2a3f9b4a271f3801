"""Runs and trials on a Ray cluster: Ray schedules, moves data and replaces lost workers.

A worker needs mer_zoo installed and nothing else: dialogues travel through Ray's object store, once per machine, and
what a run leaves comes back the same way. No storage needs to be shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from mer_zoo import registry
from mer_zoo.comparison.workers import TRIES, Lost
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.training.experiment import Experiment, dataset_of

Stack = Sequence[Experiment]
Work = Callable[[Any], Any]

LOOK_EVERY = 5.0  # seconds


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

    def __call__(self, work: Work, stacks: Iterable[Stack]) -> Iterator[tuple[Stack, Any]]:
        """Do the work with every stack; yields each with its answer, or with `Lost`, as soon as that is there."""
        stacks = iter(stacks)
        if (first := next(stacks, None)) is None:  # then no cluster need be there
            return
        with self.connected() as ray:
            try:
                yield from self._spread(ray, work, chain([first], stacks))
            except ray.exceptions.RayError as error:
                raise MerZooError(
                    f"Ray: {_first_line(error)} Finished results are kept; run it again to go on."
                ) from None

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Connect to the cluster, or start one, for the block; a connection that is there already is used and kept.

        Raises:
            MerZooError: Ray is not installed, no cluster answers, or it has no machine for such a run.
        """
        try:
            import ray
        except ImportError:
            raise MerZooError("--executor ray needs Ray. Install it: pip install 'mer-zoo[ray]'.") from None
        if ray.is_initialized():
            yield ray
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        here: dict[str, Any] = {} if self.address else {"include_dashboard": False}
        try:
            ray.init(address=self.address or "local", **quiet, **here)
        except Exception as error:  # Ray raises many kinds, from ConnectionError to gRPC's own
            place = f"--address {self.address}" if self.address else "--executor ray"
            raise MerZooError(f"{place}: no Ray cluster ({_first_line(error)}) Start one with `ray start`.") from None
        try:
            self._check_resources(ray)
            yield ray
        finally:
            ray.shutdown()

    def _check_resources(self, ray: Any) -> None:
        """Refuse a share that no machine of the cluster has, for which Ray would wait without end."""
        most = [
            max((node["Resources"].get(name, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
            for name in ("CPU", "GPU")
        ]
        for name, share, there in zip(("cpus", "gpus"), (self.cpus, self.gpus), most, strict=True):
            if share > there:
                raise MerZooError(
                    f"--{name} {share:g}: the largest machine of the cluster has {there:g}. Ask for less."
                )

    def _room(self, ray: Any) -> int:
        """Return how many stacks are asked for at a time: one more than there is room for, so that no machine idles.

        A cluster that can grow sees by it that more is wanted.
        """
        shares = [(name, share) for name, share in (("CPU", self.cpus), ("GPU", self.gpus)) if share] or [("CPU", 1.0)]
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return 1 + sum(int(min(node.get(name, 0.0) / share for name, share in shares)) for node in alive)

    def _spread(self, ray: Any, work: Work, stacks: Iterator[Stack]) -> Iterator[tuple[Stack, Any]]:
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": TRIES - 1}
        run = ray.remote(**options)(_run)
        data: dict[str, Any] = {}
        waiting: dict[Any, Stack] = {}
        try:
            while True:
                for stack in islice(stacks, max(0, self._room(ray) - len(waiting))):
                    first = stack[0]
                    if first.fingerprint not in data:
                        data[first.fingerprint] = ray.put(dataset_of(first.data))
                    # the dialogues go by reference, beside experiments without them
                    bare = [replace(one, data="") for one in stack]
                    job = run.remote(work, bare, data[first.fingerprint], registry.session(), os.getcwd(), self.cpus)
                    waiting[job] = stack
                if not waiting:
                    return
                for job in ray.wait(list(waiting), num_returns=1, timeout=LOOK_EVERY)[0]:
                    yield waiting.pop(job), _answer(ray, job)
        finally:
            for job in waiting:
                with suppress(Exception):
                    ray.cancel(job, force=True)


def _run(work: Work, stack: Stack, data: Dataset, session: Mapping[Any, Any], folder: str, cpus: float) -> Any:
    """Do the work in a worker."""
    import torch

    registry.resume(session)
    torch.set_num_threads(max(1, int(cpus)))
    with suppress(OSError):  # where files of the user's own are shared, their relative paths mean the same
        os.chdir(folder)
    return work([replace(one, data=data) for one in stack])


def _answer(ray: Any, job: Any) -> Any:
    """Return what a worker answered, or `Lost`."""
    lost = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
    try:
        return ray.get(job)
    except tuple(getattr(ray.exceptions, name) for name in lost) as error:
        return Lost(f"its worker was lost, {TRIES} times ({_first_line(error)})")
    except ray.exceptions.RayTaskError as error:
        return Lost(f"its worker could not run it: {_first_line(error.cause or error)}")


def _first_line(error: object) -> str:
    """Return what an error says, in one line that ends as a sentence does."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()[:200]
    return line if line.endswith(".") else f"{line}."
