"""Runs the notebooks of the tutorials and keeps what they show: `docs/examples/NAME/NAME.ipynb` → Markdown.

A notebook is committed without outputs, so that a difference is a difference of what was written.
"""

from __future__ import annotations

import html
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from docs.generator.pages import ROOT, Pages, raw
from docs.generator.sessions import EXAMPLES, key_of

LONGEST = 600
"""Seconds that a cell may take."""


def names() -> list[str]:
    """Return the notebooks there are."""
    return sorted(path.stem for path in EXAMPLES.glob("*/*.ipynb"))


def pages(kept: Path) -> Pages:
    """Return every notebook with its outputs; one whose files and library are unchanged is taken from `kept`."""
    made: Pages = {}
    for name in names():
        page, mark, key = f"made/notebook-{name}.md", f"made/notebook-{name}.key", key_of(name)
        fresh = (kept / page).is_file() and (kept / mark).is_file() and (kept / mark).read_text() == key
        made[page] = (kept / page).read_text(encoding="utf-8") if fresh else markdown(run(name))
        made[mark] = key
    return made


def run(name: str) -> Any:
    """Run a notebook in a fresh folder; return it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbclient
    import nbformat

    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, name)
        shutil.copytree(EXAMPLES / name, folder)
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        client = nbclient.NotebookClient(notebook, timeout=LONGEST, resources={"metadata": {"path": str(folder)}})
        settings = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": home, "JUPYTER_RUNTIME_DIR": home}
        return client.execute(env={**os.environ, **settings})


def markdown(notebook: Any) -> str:
    """Return a notebook that was run as Markdown: texts as they are, code, and below it what it showed."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found.append(cell.source)
            continue
        found.append(f"```python\n{cell.source}\n```")
        found += [_output(output, cell.source.splitlines()[-1]) for output in cell.outputs]
    return "\n\n".join(found).replace(f"{ROOT}/", "") + "\n"


def _output(output: Any, line: str) -> str:
    """Return what a cell whose last line is this showed, in the richest form that a page can."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    shown = output.data
    if "text/html" in shown:
        return raw(f'<div class="shown">\n{shown["text/html"].strip()}\n</div>')
    if "image/png" in shown:
        source = "".join(shown["image/png"].split())
        return raw(f'<img class="shown" alt="drawn by {html.escape(line)}" src="data:image/png;base64,{source}">')
    return f"```text\n{shown['text/plain'].rstrip()}\n```"
