"""Memory of a run: freed memory stays with the process while it computes, and the peak is measured."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # numbers of glibc's mallopt(3)
MEGABYTE = 1 << 20


@contextmanager
def kept() -> Iterator[None]:
    """Let malloc keep what is freed, then give it back; without effect where the C library is not glibc.

    By default glibc maps every tensor above 32 MB anew and unmaps it when it is freed, so that each of its pages is
    faulted in and zeroed again at the next operation.
    """
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None  # None names no library on Windows
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:  # the largest values that glibc would have come to by itself
        libc.mallopt(MMAP_MAX, 65536)
        libc.mallopt(MMAP_THRESHOLD, 32 * MEGABYTE)
        libc.mallopt(TRIM_THRESHOLD, 64 * MEGABYTE)
        libc.malloc_trim(0)


def forget_peak(device: str) -> None:
    """Begin to measure the peak anew, where the system allows it."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:  # not permitted in some containers: the peak is then that of the whole process so far
            return


def peak(device: str) -> float | None:
    """Return the peak in MB: of the device, or of this process since `forget_peak`; None where no one tells."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    if (status := Path("/proc/self/status")).exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    if importlib.util.find_spec("resource") is None:  # Windows
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def ran_out(error: BaseException) -> bool:
    """Return whether an error came of too little memory, on a GPU or here.

    Where a step was being recorded, torch tells of the broken recording, and of memory as what came before.

    Example:
        >>> ran_out(torch.OutOfMemoryError()), ran_out(MemoryError()), ran_out(ValueError())
        (True, True, False)
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, torch.OutOfMemoryError | MemoryError):
        if isinstance(cause, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def give_back(device: str) -> None:
    """Give back what nothing holds any more, so that the next measure of free memory sees it."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
