"""Claims: of several processes that work on one folder, each run is done by one.

A claim is a lock that the operating system holds for a process. However that process ends, its claims end with it, so
none is ever stale.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOK_EVERY = 0.5  # seconds
RUN = re.compile(r"[0-9a-f]{16}")


@contextmanager
def claim(folder: Path, run: str, wait: bool = False) -> Iterator[bool]:
    """Claim a run while the block lasts.

    Args:
        folder: where its files are written.
        run: `Identity.run`.
        wait: until whoever has it is done or gone.

    Returns:
        whether this process has it, for the block.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     with claim(Path(home), "f00d") as mine, claim(Path(home), "f00d") as also:
        ...         mine, also
        (True, False)
    """
    path = _path(folder, run)
    held = _lock(path)
    while held is None and wait:
        time.sleep(LOOK_EVERY)
        held = _lock(path)
    try:
        yield held is not None
    finally:
        if held is not None:
            if os.name == "posix":  # elsewhere a file that is open cannot be removed
                path.unlink(missing_ok=True)
            os.close(held)


def claimed(folder: Path, run: str) -> bool:
    """Return whether a process that is at work in a folder, on this machine or another, has claimed a run."""
    return _path(folder, run).exists()


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left behind: claims, and halves of the files of runs.

    What belongs to a run that somebody is at is left alone.
    """
    left: dict[str, list[Path]] = {}
    for path in [*folder.glob(".*.claim"), *folder.glob(".*.tmp")]:
        if runs := RUN.findall(path.name):
            left.setdefault(runs[-1], []).append(path)
    for run, paths in left.items():
        with claim(folder, run) as mine:
            for path in paths if mine else ():
                with suppress(OSError):
                    path.unlink()


def _path(folder: Path, run: str) -> Path:
    return folder / f".{run}.claim"


def _lock(path: Path) -> int | None:
    """Return the open file that holds a lock; None where another process has it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _locked(file):
            os.close(file)
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)  # whoever had it removed it meanwhile: a new one counts


def _locked(file: int) -> bool:
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: then nobody has one
            return True
        return True
    import msvcrt

    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    return True
