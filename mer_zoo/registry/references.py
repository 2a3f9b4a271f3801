"""The papers that cards and recipes cite: `registry/references.bib`, read without a library."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from mer_zoo.errors import MerZooError
from mer_zoo.registry import plugins, resources


@dataclass(frozen=True)
class Reference:
    """One entry of a BibTeX file.

    Attributes:
        key: what cards call it.
        title: without braces.
        authors: in order, `First Last` or `Last, First` as written.
        year: of publication.
        venue: journal or proceedings, or "".
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str

    @property
    def short(self) -> str:
        """Authors and year: `Hu et al. 2021`.

        Example:
            >>> references()["hu2021mmgcn"].short
            'Hu et al. 2021'
        """
        names = [author.split(",")[0] if "," in author else author.split()[-1] for author in self.authors]
        who = names[0] if len(names) == 1 else f"{names[0]} and {names[1]}" if len(names) == 2 else f"{names[0]} et al."
        if names[1:] == ["others"]:
            who = f"{names[0]} et al."
        return f"{who} {self.year}"

    def __str__(self) -> str:
        return f"{self.short}. {self.title}.{f' {self.venue}.' if self.venue else ''}"


@resources.remembered
def references() -> dict[str, Reference]:
    """Return every paper of the library by its key, and those of plugins as `plugin/key`.

    Example:
        >>> references()["chen2020simple"].title
        'Simple and Deep Graph Convolutional Networks'
    """
    found = read(resources.folder("registry") / "references.bib")
    for plugin in plugins.plugins()[0]:
        with contextlib.suppress(MerZooError):  # `faults` tells
            found |= {f"{plugin.name}/{key}": paper for key, paper in read_plugin(plugin).items()}
    return found


def cited(key: str | None, by: str = "") -> Reference | None:
    """Return the paper that a part or recipe cites: one of its own plugin's, or of the library's.

    Args:
        key: what the card or recipe says.
        by: name of the part or recipe, such as `acme/gated`.

    Example:
        >>> cited("chen2020simple").year, cited("nobody1900")
        (2020, None)
    """
    known = references()
    return known.get(f"{by.partition('/')[0]}/{key}") or known.get(str(key))


def faults() -> list[str]:
    """Return what keeps plugins' papers from being read."""
    found = []
    for plugin in plugins.plugins()[0]:
        try:
            read_plugin(plugin)
        except MerZooError as fault:
            found.append(str(fault))
    return found


def read_plugin(plugin: plugins.Plugin) -> dict[str, Reference]:
    """Read the papers of a plugin, if it brings any.

    Args:
        plugin: installed.
    """
    path = plugin.folder / "references.bib"
    return read(path) if path.is_file() else {}


def read(path: Path) -> dict[str, Reference]:
    """Read a BibTeX file of plain entries: `@type{key, field={value}, ...}`.

    Raises:
        MerZooError: an entry lacks title, author or year, a key is given twice, or braces do not close.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MerZooError(f"{path}: cannot be read as text ({error}).") from None
    found: dict[str, Reference] = {}
    for start in re.finditer(r"^@\w+\{\s*([^,\s]+)\s*,", text, re.MULTILINE):
        key = start[1]
        line = text.count("\n", 0, start.start()) + 1
        fields = _fields(text, start.end(), f"{path}:{line} {key}")
        if missing := [name for name in ("title", "author", "year") if name not in fields]:
            raise MerZooError(f"{path}:{line} {key}: {', '.join(missing)} is missing. Add it.")
        if key in found:
            raise MerZooError(f"{path}:{line} '{key}' is given twice. Keep one.")
        if not re.fullmatch(r"\d{4}", fields["year"]):
            raise MerZooError(f"{path}:{line} {key}: year '{fields['year']}' is no year of four digits. Correct it.")
        venue = fields.get("journal") or fields.get("booktitle") or ""
        authors = tuple(re.split(r"\s+and\s+", fields["author"]))
        found[key] = Reference(key, fields["title"], authors, int(fields["year"]), venue)
    return found


def _fields(text: str, at: int, place: str) -> dict[str, str]:
    """Read `name={value}` after `name={value}`, up to the brace that closes the entry."""
    fields = {}
    while name := re.compile(r"\s*(\w+)\s*=\s*[{\"]").match(text, at):
        depth, at = 1, name.end()
        begin = at
        while depth:
            if at >= len(text):
                raise MerZooError(f"{place}: a brace does not close.")
            depth += {"{": 1, "}": -1, '"': -1 if depth == 1 and text[name.end() - 1] == '"' else 0}.get(text[at], 0)
            at += 1
        fields[name[1].lower()] = _plain(text[begin : at - 1])
        comma = re.compile(r"\s*,?").match(text, at)
        at = comma.end() if comma else at
    return fields


ACCENTS = {"'": "\u0301", "`": "\u0300", '"': "\u0308", "^": "\u0302", "~": "\u0303", "v": "\u030c", "c": "\u0327"}
LETTERS = {r"\L": "Ł", r"\l": "ł", r"\o": "ø", r"\O": "Ø", r"\ss": "ß", r"\i": "i", r"\&": "&"}


def _plain(value: str) -> str:
    """Turn LaTeX's accents and letters into Unicode and drop braces."""
    accented = re.compile(r"\\(['`\"^~]|[vc](?![a-z]))\s*\{?\\?([A-Za-z])\}?")
    value = accented.sub(lambda m: unicodedata.normalize("NFC", m[2] + ACCENTS[m[1]]), value)
    value = re.sub(r"\\([A-Za-z]+|&)", lambda m: LETTERS.get(m[0], m[0]), value)
    return re.sub(r"\s+", " ", re.sub(r"[{}]", "", value)).replace("--", "–").strip()
