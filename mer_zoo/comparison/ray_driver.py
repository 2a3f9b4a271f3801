"""The process that is connected to a Ray cluster: Ray ends it when the cluster is lost, so nothing else happens in it.

Neither torch nor any part is imported here: what workers are sent, and what they answer, goes through as bytes.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from mer_zoo.comparison.workers import TRIES, Lost, end_with
from mer_zoo.errors import MerZooError

Machine = Mapping[str, float]
"""Resource -> how much of it a machine has."""

REACHED = 10.0
"""Seconds that a cluster has to answer."""


def pickled(value: Any) -> bytes:
    """Return a value as bytes; what is defined in the caller's script goes along."""
    from joblib.externals.loky.backend.reduction import dumps

    return bytes(dumps(value))


def serve(pipe: Connection, parent: int, log: str) -> None:
    """Answer what is asked, each question with a value or an error, until nobody is there who could ask.

    Args:
        pipe: gives the name of a method of `Driver`, and its arguments.
        parent: number of the process that asks.
        log: file for what Ray has to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks is told of it, and says what comes of it
    end_with(parent)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
    driver = Driver()
    with suppress(EOFError, OSError):
        while True:
            name, given = pickle.loads(pipe.recv_bytes())
            try:
                answer = getattr(driver, name)(*given)
            except MerZooError as error:
                answer = error
            except Exception as error:  # Ray raises many kinds, from ConnectionError to gRPC's own
                answer = lost(f"{type(error).__name__}: {first_line(error)}")
            pipe.send_bytes(pickled(answer))
    driver.leave()


class Driver:
    """A connection to a cluster, and what is waited for there."""

    def __init__(self) -> None:
        self.ray: Any = None
        self.data: dict[str, Any] = {}
        self.jobs: dict[Any, int] = {}

    def connect(self, address: str | None) -> None:
        """Connect to a cluster; None starts one of this machine alone.

        Raises:
            MerZooError: Ray is not installed, or no cluster answers.
        """
        try:
            import ray
        except ImportError:
            raise MerZooError("--executor ray needs Ray. Install it: pip install 'mer-zoo[ray]'.") from None
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        here: dict[str, Any] = {} if address else {"include_dashboard": False}
        try:
            if address:
                reach(address)
            ray.init(address=address or "local", **quiet, **here)
            self.ray = ray
        except Exception as error:
            place = f"--address {address}" if address else "--executor ray"
            raise MerZooError(f"{place}: no Ray cluster ({first_line(error)}) Start one with `ray start`.") from None

    def leave(self) -> None:
        """End the connection, and a cluster that was started for it."""
        if self.ray is not None:
            self.ray.shutdown()

    def machines(self) -> list[Machine]:
        """Return the machines of the cluster."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def keep(self, name: str, data: Any) -> None:
        """Put something where every machine finds it."""
        self.data[name] = self.ray.put(data)

    def ask(self, number: int, work: bytes, name: str, cpus: float, gpus: float) -> None:
        """Ask for some work on what is kept; its number comes back with the answer."""
        run = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=TRIES - 1)(_run)
        self.jobs[run.remote(work, self.data[name])] = number

    def answered(self, seconds: float) -> tuple[int | None, bytes | Lost]:
        """Wait for an answer, at most so long; returns it with its number, or None as a number."""
        for job in self.ray.wait(list(self.jobs), num_returns=1, timeout=seconds)[0]:
            return self.jobs.pop(job), _answer(self.ray, job)
        return None, b""


def _run(work: bytes, data: Any) -> bytes:
    """Do the work in a worker."""
    return pickled(pickle.loads(work)(data))


def _answer(ray: Any, job: Any) -> bytes | Lost:
    """Return what a worker answered, or `Lost`."""
    kinds = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
    try:
        return ray.get(job)
    except tuple(getattr(ray.exceptions, name) for name in kinds) as error:
        return Lost(f"its worker was lost, {TRIES} times ({first_line(error)})")
    except ray.exceptions.RayTaskError as error:
        return Lost(f"its worker could not run it: {first_line(error.cause or error)}")


def reach(address: str) -> None:
    """Find out whether a program answers at `host:port` or `ray://host:port`: Ray would wait for minutes.

    Raises:
        OSError: none does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), REACHED).close()


def lost(why: str) -> MerZooError:
    """Return the error of a cluster that is lost.

    Example:
        >>> raise lost("its head does not answer")
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: Ray: the cluster is lost (its head does not answer). Finished results are kept; run
        it again to go on, on a new cluster if its head is gone.
    """
    return MerZooError(
        f"Ray: the cluster is lost ({why[:200].rstrip('.')}). Finished results are kept; run it again to go on, on a "
        "new cluster if its head is gone."
    )


def first_line(error: object) -> str:
    """Return what an error says, in one line that ends as a sentence does."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()[:200]
    return line if line.endswith(".") else f"{line}."
