"""The role `src`: from a fragment of code to the line it stands on, so that no page holds a line number.

`` {src}`mer_zoo/model/model.py :: def assemble(` `` becomes a link to that line on the page that `sphinx.ext.viewcode`
makes of the file, a file without a fragment one to its page of the reference. A fragment is a whole line or a piece of
one; if it stands nowhere in the file, or on more than one line, that is a fault.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes

from docs.generator.pages import ROOT, module, source_page
from mer_zoo.errors import MerZooError

ROLE = re.compile(r"\{src\}`([^`]+)`")


def find(text: str) -> tuple[str, int]:
    """Return file and line of `file :: fragment`, or of a whole file."""
    path, _, fragment = (word.strip() for word in text.partition("::"))
    file = ROOT / path
    if not file.is_file():
        raise MerZooError(f"src `{text}`: no file {path}.")
    if not fragment:
        return path, 1
    text_lines = list(enumerate(file.read_text(encoding="utf-8").splitlines(), 1))
    whole = [number for number, line in text_lines if line.strip() == fragment]
    lines = whole or [number for number, line in text_lines if fragment in line]
    if len(lines) != 1:
        raise MerZooError(f"src `{text}`: the fragment stands on {len(lines)} lines of {path}; want exactly one.")
    return path, lines[0]


def faults() -> list[str]:
    """Return every reference of the hand-written pages that does not resolve."""
    found = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for text in ROLE.findall(page.read_text(encoding="utf-8")):
            try:
                find(text)
            except MerZooError as error:
                found.append(f"{page.relative_to(ROOT)}: {error}")
    return found


def role(name: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: Any, **__: Any) -> Any:
    """The role itself, as docutils calls it."""
    try:
        path, line = find(text)
    except MerZooError as error:
        fault = inliner.reporter.error(str(error), line=lineno)
        return [inliner.problematic(rawtext, rawtext, fault)], [fault]
    up = inliner.document.settings.env.docname.count("/")
    if "::" in text:
        shown, address = f"{Path(path).name}:{line}", source_page(path, line, up)
    else:
        shown, address = Path(path).name, f"{'../' * up}api/{module(path)}.html"
    return [nodes.reference("", "", nodes.literal(text=shown), refuri=address, internal=True)], []


def on_page(app: Any, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give every line of a source page its anchor."""
    if name.startswith("_modules/mer_zoo"):
        numbered = r'<span class="linenos">(\s*(\d+))</span>'
        context["body"] = re.sub(numbered, r'<span class="linenos" id="L\2">\1</span>', context["body"])
