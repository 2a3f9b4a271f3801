"""Reading `.npz` files without spending more memory than their size explains, and without pickles."""

from __future__ import annotations

import math
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

from mer_zoo.errors import MerZooError
from mer_zoo.registry.faults import short

UNPACKED = 100  # features shrink by 10 when compressed, sparse ones by 50
SPARE = 64 << 20  # bytes that a small file may unpack to anyway


def read_arrays(file: Path, entry: str = "column") -> dict[str, np.ndarray]:
    """Read every array of an `.npz`.

    Args:
        file: what `numpy.savez` wrote.
        entry: what errors call an array.

    Returns:
        the arrays by name.

    Raises:
        MerZooError: no such file, not an archive of arrays, damaged, Python objects, or more than its size explains.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     np.savez(f"{home}/a.npz", x=[1, 2])
        ...     read_arrays(Path(home, "a.npz"))["x"].tolist()
        [1, 2]
    """
    if not os.path.isfile(file):
        raise MerZooError(f"{file}: {'is a folder' if os.path.isdir(file) else 'no such file'}. Check the path.")
    try:
        loaded = np.load(file, mmap_mode="r", allow_pickle=False)  # of an .npz nothing is mapped or read yet
    except Exception as error:  # damaged bytes can make zipfile and numpy raise nearly anything
        reason = "it is no archive" if "allow_pickle" in str(error) else _reason(error)
        raise MerZooError(f"{file}: is not a readable .npz ({reason}). Write it with numpy.savez.") from None
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise MerZooError(f"{file}: is a single array, not an .npz of {entry}s. Write it with numpy.savez.")
    arrays: dict[str, np.ndarray] = {}
    with loaded:
        archive = loaded.zip
        assert archive is not None
        _check_size(archive, file)
        for key in loaded.files:
            here = f"{file}, {entry} '{short(key)}'"
            try:
                _check_declaration(archive, key, here)
                arrays[key] = loaded[key]
                if isinstance(arrays[key], np.ndarray):
                    check_letters(arrays[key])
            except MerZooError:
                raise
            except Exception as error:
                if "allow_pickle" in str(error):
                    raise MerZooError(
                        f"{here}: holds Python objects, which are pickles and are not read. "
                        "Store text as a numpy string array and numbers as a numeric one."
                    ) from None
                raise MerZooError(f"{here}: cannot be read ({_reason(error)}). The file is damaged.") from None
            if not isinstance(arrays[key], np.ndarray):
                raise MerZooError(f"{here}: is not a numpy array. Write the file with numpy.savez.")
    return arrays


def check_letters(array: np.ndarray) -> None:
    """Refuse an array of texts whose numbers are no letters, which Python would take for some and fall over later.

    Raises:
        ValueError: there is such a number.

    Example:
        >>> check_letters(np.array(["a", "é"]))
    """
    if array.dtype.kind == "U" and array.nbytes:
        numbers = np.frombuffer(array.tobytes(), array.dtype.str[0] + "u4")
        if numbers.max() > sys.maxunicode:
            raise ValueError(f"it holds text of a letter numbered {numbers.max():,}, which is none")


def _reason(error: Exception) -> str:
    return short(" ".join(str(error).split()) or type(error).__name__)


def _check_size(archive: zipfile.ZipFile, file: Path) -> None:
    size = sum(member.file_size for member in archive.infolist())
    if size > UNPACKED * file.stat().st_size + SPARE:
        raise MerZooError(
            f"{file}: unpacks to {size:,} bytes, more than {UNPACKED} times its size. If it is right, write it with "
            "numpy.savez instead of savez_compressed."
        )


def _check_declaration(archive: zipfile.ZipFile, key: str, here: str) -> None:
    """Compare the shape that an array declares with the bytes there are, before room is made for it."""
    name = next((n for n in (f"{key}.npy", key) if n in archive.NameToInfo), key)
    with archive.open(name) as member:
        if not name.endswith(".npy"):
            return  # no array, as will be said
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        there = archive.getinfo(name).file_size - member.tell()
    want = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and (want != there or min(shape, default=0) < 0):
        raise MerZooError(
            f"{here}: declares shape {short(str(shape))} of {short(str(dtype))}, {want:,} bytes, and holds {there:,}. "
            "The file is damaged."
        )
