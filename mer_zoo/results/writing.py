"""Files that are written whole or not at all."""

from __future__ import annotations

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
        probe.unlink()
    except OSError as error:
        raise MerZooError(
            f"{str(folder)[:200]}: cannot be written ({error.strerror}). Choose a folder that you may write."
        ) from None


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
        raise MerZooError(
            f"{path}: cannot be written ({error.strerror}). Choose a folder that you may write."
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
