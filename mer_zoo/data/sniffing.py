"""What a file is, told by its first bytes, whatever its name says: so that a wrong file is called what it is."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from mer_zoo.errors import MerZooError

BEGINNING = 1 << 16  # bytes that are looked at

SIGNS: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a single numpy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"ARROW1", "an Arrow file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"RIFF", "a recording"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a pointer of Git LFS: the file itself was not fetched"),
)
ARCHIVES = ("a zip archive", *(what for _, what in SIGNS if what.endswith("archive")))


def what_is(path: str | os.PathLike[str]) -> str:
    r"""Return in words what a file is.

    Raises:
        MerZooError: it is no file, or cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     _ = Path(home, "features.npz").write_bytes(b"dialogue,utterance\n0,1\n")
        ...     what_is(f"{home}/features.npz")
        'a CSV table'
    """
    file = Path(path)
    if not os.path.isfile(file):
        raise MerZooError(f"{file}: {'is a folder' if os.path.isdir(file) else 'no such file'}. Check the path.")
    try:
        with file.open("rb") as stream:
            start = stream.read(BEGINNING)
    except OSError as error:
        raise MerZooError(f"{file}: cannot be read: {error.strerror or error}.") from None
    if not start:
        return "an empty file"
    for sign, what in SIGNS:
        if start.startswith(sign):
            return what
    if start.startswith(b"PK"):
        return _archive(file)
    if re.match(rb"\x80[\x02-\x05]|[(\]}]", start):  # nothing else begins as pickles of protocols 0 and 1 do
        return "a pickle"
    if re.match(rb".{7}\x00\{\"", start, re.DOTALL):
        return "a safetensors file"
    return _text(start)


def _archive(file: Path) -> str:
    """Tell the kinds of zip archives apart by the names of their members."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # damaged bytes can raise nearly anything
        return "a zip archive"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file"
    if any(name.startswith(("xl/", "word/")) for name in names):
        return "an Excel workbook" if any(name.startswith("xl/") for name in names) else "a Word document"
    return "an .npz" if names and all(name.endswith(".npy") for name in names) else "a zip archive"


def _text(start: bytes) -> str:
    """Tell the kinds of text apart."""
    if re.match(rb"\([ldt]p0\n|[(VSIFLc][^\n]*\n", start) and (start.endswith(b"\n.") or start[2:5] == b"p0\n"):
        return "a pickle"  # of protocol 0, which is text
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # else the last character is cut in two
            return "no kind of file known here" if b"\0" in start or b"\n" not in start else "text, but not in UTF-8"
        text = start[: error.start].decode("utf-8-sig")
    if "\0" in text:
        return "no kind of file known here"
    first, _, rest = text.lstrip().partition("\n")
    if re.match(r"<(!doctype html|html|head|body)", first, re.IGNORECASE):
        return "a page of HTML"
    if first.startswith("<"):
        return "an XML file"
    if re.match(r"\{.*\}\s*$", first) and (not rest.strip() or rest.lstrip().startswith("{")):
        return "JSON, an object a line"
    if re.match(r"[\[{]\s*($|[\[{\"\d\]}-])", first):
        whole = first.startswith("{") and len(start) == BEGINNING and "\n" not in text.strip()
        return "JSON, an object a line" if whole else "a JSON document"
    return "a CSV table" if re.search(r"[,;\t]", first) else "a text file"
