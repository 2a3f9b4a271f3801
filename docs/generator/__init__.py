"""Makes the pages of the site that follow from the code: parts, models, formats, transcripts, papers.

They are made anew whenever the site is built and are not committed, so they cannot be stale. What can go wrong (an
undocumented setting, a reference to a line that is gone, a paper that nobody knows) is a fault, and a fault
stops the build; `python -m docs.generator --check` reports all of them without building.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from docs.generator import (
    attacks,
    commands,
    family,
    formats,
    measured,
    notebooks,
    papers,
    parts,
    recipes,
    sessions,
    sources,
)
from docs.generator.pages import ROOT, Pages
from mer_zoo import registry

FOLDERS = ("api", "catalogue", "made", "models")
FILES = ("papers.md", "reference/commands.md", "reference/tested.md")
"""What `write` makes below docs/; everything else there is written by hand."""


def faults() -> list[str]:
    """Return all that keeps the site from being complete and true, one sentence each."""
    return [
        *registry.card_faults(),
        *parts.faults(registry.cards()),
        *recipes.faults(),
        *sources.faults(),
        *attacks.faults(),
    ]


def pages(kept: Path, examples: bool = True) -> Pages:
    """Return all generated pages; transcripts and notebooks that are still true are taken from `kept`."""
    cards = registry.cards()
    used = recipes.papers_used()
    for card in cards:
        if card.paper is not None:
            used.setdefault(card.paper, []).append(f"[{card.id}](#part-{card.kind}-{card.name})")
    made = {
        **parts.pages(cards),
        **recipes.pages(),
        **family.pages(),
        **measured.pages(),
        **formats.pages(),
        **commands.pages(),
        **attacks.pages(),
        **papers.pages(used),
    }
    return {**made, **sessions.pages(kept), **notebooks.pages(kept)} if examples else made


def write(folder: Path = ROOT / "docs") -> None:
    """Write all generated pages below a folder, replacing earlier ones; unchanged files are not touched."""
    made = pages(folder)
    for path in [file for name in FOLDERS for file in (folder / name).rglob("*") if file.is_file()]:
        if path.relative_to(folder).as_posix() not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def clean(folder: Path = ROOT / "docs") -> None:
    """Remove all generated pages."""
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
