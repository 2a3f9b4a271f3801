"""Worker processes: each job that is lost with its worker is tried again, and no worker outlives its parent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeVar

from mer_zoo import registry
from mer_zoo.errors import MerZooError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

TRIES = 2
LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Lost:
    """What stands for the answer of a job whose worker died every time."""

    message: str


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(devices: Collection[str]) -> list[dict[str, str]]:
    """Return variables that give each worker a GPU of its own: every GPU for `cuda`, one for `cuda:1`, none on CPU.

    Args:
        devices: that the jobs name.

    Example:
        >>> gpus({"cpu"}), gpus({"cuda:1"})
        ([], [{}])
    """
    named = {device for device in devices if device.startswith("cuda")}
    if named != {"cuda"}:
        return [{}] if named else []
    import torch

    visible = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    numbers = visible or [str(number) for number in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": number} for number in numbers]


def check_count(workers: int | None) -> None:
    """Refuse a number of workers below 1.

    Raises:
        MerZooError: it is.
    """
    if workers is not None and workers < 1:
        raise MerZooError(f"{workers} workers: want at least 1, or leave it out for one per processor.")


def at_a_time(places: Sequence[Mapping[str, str]], asked: int | None) -> int:
    """Return how many workers go on at a time: one per GPU or processor, or as many as are asked for, if that is fewer.

    Args:
        places: what `gpus` returns.
        asked: a number, if one is asked for.

    Example:
        >>> at_a_time(gpus({"cpu"}), 3), at_a_time(gpus({"cuda:1"}), 3)
        (3, 1)
    """
    most = len(places)
    return min(most, asked) if most and asked else most or asked or processors()


def spread(
    work: Callable[[Job], Answer], jobs: Iterable[Job], count: int, variables: Sequence[Mapping[str, str]] = ()
) -> Iterator[tuple[Job, Answer | Lost]]:
    """Do jobs in processes, and yield each with its answer as soon as it is there.

    Every process stands alone: when one is killed, its job alone is lost, and is given to a new one.

    Args:
        work: what to do with a job; it and its answer are pickled.
        jobs: what to do it with; each is taken when a process is free for it.
        count: processes.
        variables: environment of each process, beside the caller's; by default nothing.

    Example:
        >>> sorted(spread(abs, [-1, -2], count=2))
        [(-2, 2), (-1, 1)]
    """
    threads = max(1, processors() // count)
    free: SimpleQueue[Any] = SimpleQueue()
    started: list[Any] = []
    stopped = threading.Event()

    def start(number: int) -> tuple[int, Any]:
        from joblib.externals.loky import ProcessPoolExecutor

        # unlike the standard library's it needs no `if __name__ == "__main__"` in the caller's script
        own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        own |= variables[number] if variables else {}
        worker = ProcessPoolExecutor(
            1, initializer=_begin, initargs=(os.getpid(), threads, registry.session()), env=own
        )
        started.append(worker)
        return number, worker

    def answer(job: Job) -> Answer | Lost:
        number, worker = free.get()
        try:
            for _ in range(TRIES):
                if stopped.is_set():
                    break
                try:
                    return worker.submit(work, job).result()
                except BrokenExecutor:
                    worker.shutdown(wait=False, kill_workers=True)
                    _, worker = start(number)
            return Lost(f"its process was killed, {TRIES} times. Is there enough memory? Try fewer --workers.")
        finally:
            free.put((number, worker))

    for number in range(count):
        free.put(start(number))
    with ThreadPoolExecutor(count) as threads_of_parent:
        left = iter(jobs)
        running: dict[Any, Job] = {}
        try:
            while True:
                for job in islice(left, count - len(running)):
                    running[threads_of_parent.submit(answer, job)] = job
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:  # also when the caller is interrupted: what has not begun never does
            stopped.set()
            threads_of_parent.shutdown(wait=False, cancel_futures=True)
            for worker in started:
                worker.shutdown(wait=False, kill_workers=True)


def _begin(parent: int, threads: int, session: Mapping[Any, Any]) -> None:
    """Prepare a worker."""
    import torch

    registry.resume(session)
    torch.set_num_threads(threads)
    end_with(parent)


def end_with(parent: int) -> None:
    """Let this process end when its parent is gone, however that ended."""
    if os.name != "posix":
        return  # elsewhere it keeps the number of a dead parent; it ends with its job, at a closed pipe

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
