"""Freed memory stays with the process while it computes: fresh pages cost more than many an operation on them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
