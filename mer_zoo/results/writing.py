"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from mer_zoo.errors import MerZooError


def check_writable(folder: Path) -> None:
    """Make a folder and write a file into it, which is removed again, so that nothing is computed in vain.

    Raises:
        MerZooError: that is not possible.

    Example:
        >>> import tempfile
        >>> check_writable(Path(tempfile.mkdtemp()) / "runs")
    """
    probe = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("x", encoding="utf-8")
    except OSError as error:
        raise MerZooError(_refused(folder, error)) from None
    finally:
        with suppress(OSError):
            probe.unlink()


def beside(path: Path) -> Path:
    """Return where a file is written before it takes its place; its name says of which file it would be.

    Example:
        >>> beside(Path("runs/a.txt")).match("runs/.a.txt.*.tmp")
        True
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that others see all of it or none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", "all of it")
        >>> [(file.name, file.read_text()) for file in folder.iterdir()]
        [('a.txt', 'all of it')]
    """
    temporary = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise MerZooError(_refused(path, error)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _refused(path: Path, error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "Make room, or choose another folder" if full else "Choose a folder that you may write"
    return f"{str(path)[:200]}: cannot be written ({error.strerror}). {remedy}."
