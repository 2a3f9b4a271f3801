"""Runs and trials on a Ray cluster: Ray schedules, moves data and replaces lost workers.

A worker needs mer_zoo installed and nothing else: dialogues travel through Ray's object store, once per machine, and
what a run leaves comes back the same way. No storage needs to be shared.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mer_zoo import registry
from mer_zoo.comparison.ray_driver import Machine, lost, pickled, serve
from mer_zoo.comparison.workers import Lost
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.training.experiment import Experiment, dataset_of

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Stack = Sequence[Experiment]
Work = Callable[[Any], Any]

LOOK_EVERY = 2.0
"""Seconds after which new machines are seen at the latest."""
LEAVING = 10.0
"""Seconds that the end of a connection may take."""
SAID = re.compile(r"^\[[^]]* [EFC] [^]]*\] \S+ (?![ *]|PC:)(.+?)(?=\. |$)", re.MULTILINE)
"""The first sentence of an error in Ray's log, but for stacks."""


@dataclass(frozen=True)
class RayCluster:
    """Runs every stack of experiments as a Ray task (Moritz et al., OSDI 2018).

    Attributes:
        address: of the cluster: `auto` for the one this machine is part of, `host:6379`, `ray://host:10001`; None: a
            cluster of this machine alone, for the time of the suite.
        cpus: processors of a run; a fraction lets several runs share one.
        gpus: GPUs of a run; a fraction lets several runs share one.

    Raises:
        MerZooError: Ray is not installed, a share below 0, no cluster answers, or it is lost.

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
        if (first := next(stacks, None)) is not None:  # else no cluster need be there
            with self.connected() as connected:
                yield from connected(work, chain([first], stacks))

    @contextmanager
    def connected(self) -> Iterator[Connected]:
        """Connect to the cluster, or start one, for the block.

        Raises:
            MerZooError: Ray is not installed, no cluster answers, or it has no machine for such a run.
        """
        from joblib.externals.loky.backend import get_context

        loky = get_context("loky")  # unlike the standard library's it needs no `if __name__ == "__main__"`
        with TemporaryDirectory() as home:
            log = Path(home, "log")
            log.touch()
            pipe, far = loky.Pipe()
            process = loky.Process(target=serve, args=(far, os.getpid(), str(log)), daemon=True)
            process.start()
            far.close()
            try:
                connected = Connected(self, pipe, log)
                connected.call("connect", self.address)
                self._check_resources(connected.call("machines"))
                yield connected
            finally:
                pipe.close()
                process.join(LEAVING)
                if process.is_alive():
                    process.terminate()

    def _check_resources(self, machines: Sequence[Machine]) -> None:
        """Refuse a share that no machine of the cluster has, for which Ray would wait without end."""
        for name, share in (("cpus", self.cpus), ("gpus", self.gpus)):
            most = max((machine.get(name[:-1].upper(), 0.0) for machine in machines), default=0.0)
            if share > most:
                raise MerZooError(f"--{name} {share:g}: the largest machine of the cluster has {most:g}. Ask for less.")

    def room(self, machines: Sequence[Machine]) -> int:
        """Return how many stacks are asked for at a time: one more than there is room for, so that no machine idles.

        A cluster that can grow sees by it that more is wanted.
        """
        shares = [(name, share) for name, share in (("CPU", self.cpus), ("GPU", self.gpus)) if share] or [("CPU", 1.0)]
        return 1 + sum(int(min(machine.get(name, 0.0) / share for name, share in shares)) for machine in machines)


class Connected:
    """A cluster to which a process of its own is connected, see `ray_driver`.

    Args:
        cluster: what was asked for.
        pipe: to the process.
        log: what Ray says.
    """

    def __init__(self, cluster: RayCluster, pipe: Connection, log: Path) -> None:
        self.cluster, self._pipe, self._log = cluster, pipe, log
        self._kept: set[str] = set()
        self._numbers = count()

    def call(self, name: str, *given: Any) -> Any:
        """Call a method of the process's `Driver`.

        Raises:
            MerZooError: as of the method, or the cluster is lost.
        """
        try:
            self._pipe.send_bytes(pickled((name, given)))
            answer = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            said = SAID.findall(self._log.read_text(encoding="utf-8", errors="replace"))
            raise lost(said[-1] if said else "its connection ended") from None
        if isinstance(answer, MerZooError):
            raise answer
        return answer

    def __call__(self, work: Work, stacks: Iterable[Stack]) -> Iterator[tuple[Stack, Any]]:
        """Do the work with every stack, as of `RayCluster`."""
        stacks = iter(stacks)
        waiting: dict[int, Stack] = {}
        while True:
            for stack in islice(stacks, max(0, self.cluster.room(self.call("machines")) - len(waiting))):
                waiting[number := next(self._numbers)] = stack
                self._ask(number, work, stack)
            if not waiting:
                return
            number, answer = self.call("answered", LOOK_EVERY)
            if number in waiting:
                yield waiting.pop(number), answer if isinstance(answer, Lost) else pickle.loads(answer)

    def _ask(self, number: int, work: Work, stack: Stack) -> None:
        first = stack[0]
        if first.fingerprint not in self._kept:
            self.call("keep", first.fingerprint, dataset_of(first.data))
            self._kept.add(first.fingerprint)
        # the dialogues go by reference, beside experiments without them
        bare = [replace(one, data="") for one in stack]
        job = partial(_worked, work, bare, registry.session(), os.getcwd(), self.cluster.cpus)
        self.call("ask", number, pickled(job), first.fingerprint, self.cluster.cpus, self.cluster.gpus)


def _worked(work: Work, stack: Stack, session: Mapping[Any, Any], folder: str, cpus: float, data: Dataset) -> Any:
    """Do the work in a worker."""
    import torch

    registry.resume(session)
    torch.set_num_threads(max(1, int(cpus)))
    with suppress(OSError):  # where files of the user's own are shared, their relative paths mean the same
        os.chdir(folder)
    return work([replace(one, data=data) for one in stack])
