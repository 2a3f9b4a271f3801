"""A child process that tries cases under limits: it may crash, hang or want all memory, and only the case is lost."""

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from mer_zoo.errors import MerZooError

SECONDS = 10  # of processor time for a case; neighbours on the machine cannot use them up
PATIENCE = 90  # seconds of the clock, after which a case hangs without computing
MEGABYTES = 2048  # beyond what the library itself takes
POSIX = os.name == "posix"


@dataclass(frozen=True)
class Verdict:
    """How a case ended.

    Attributes:
        kind: `accepted`, `refused` by a `MerZooError`, or what must not be: `unexpected`, `crash` or `hang`.
        text: the message, or the traceback.
        seconds: of processor time.
        megabytes: the most memory that the child had taken by then, beyond what it began with.
    """

    kind: str
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def passes(self):
        """Whether it ended as it may."""
        return self.kind in ("accepted", "refused")


class Child:
    """Tries the cases of an entry point one after another; a new process takes over when one is lost."""

    def __init__(self, entry):
        self.entry = entry
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self._end()

    def try_case(self, content):
        """Return the verdict of a file of this content."""
        if self.process is None:
            self._begin()
        self.pipe.send_bytes(content)
        try:
            if self.pipe.poll(PATIENCE):
                return Verdict(*self.pipe.recv())
            self._end()
            return Verdict("hang", f"no answer within {PATIENCE} seconds", PATIENCE)
        except (EOFError, ConnectionError):
            self.process.join()
            code, self.process = self.process.exitcode, None
            if code == -signal.SIGPROF:
                return Verdict("hang", f"more than {SECONDS} seconds of processor time", SECONDS)
            return Verdict("crash", f"the process ended with {signal.Signals(-code).name if code < 0 else code}")

    def _begin(self):
        context = multiprocessing.get_context("fork")  # a fork has all that is loaded, at once
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.pipe, self.entry), daemon=True)
        self.process.start()
        theirs.close()

    def _end(self):
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def _serve(pipe, parents, entry):
    import resource

    import torch

    parents.close()  # or this process would not notice that its parent is gone
    torch.set_num_threads(1)
    faulthandler.disable()  # the parent says what happened
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _taken() + (MEGABYTES << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    first = _peak()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        while True:
            try:
                content = pipe.recv_bytes()
            except (EOFError, OSError):
                return
            begin = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            kind, text = _tried(entry, content, Path(folder))
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send((kind, text, time.process_time() - begin, _peak() - first))


def _tried(entry, content, folder):
    path = folder / entry.file
    path.write_bytes(content)
    try:
        entry.use(path)
    except MerZooError as error:
        message = str(error)
        if "MemoryError" in message or "Unable to allocate" in message:
            return "unexpected", f"memory was taken before it was refused: {message[:1000]}"
        return "refused", message
    except BaseException:  # what must not be
        return "unexpected", traceback.format_exc(limit=-12)
    return "accepted", ""


def _taken():
    """Return the bytes of address space that this process has."""
    import resource

    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak():
    """Return the largest memory of this process so far, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
