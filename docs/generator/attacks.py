"""What is tested against: the rows of `tests/attacks.yaml`, and the tests that name them."""

from __future__ import annotations

import ast

from docs.generator.pages import ROOT, Pages, table
from mer_zoo.registry import document

ROWS = "tests/attacks.yaml"
PARTS = {
    "A": "Code that is run, memory that is corrupted or exhausted",
    "B": "Results that are lost, or wrong in silence",
    "C": "Mistakes of a user that end in a traceback",
    "D": "Messages, portability, smaller matters",
    "H": "What always held, and shall go on to",
}


def rows() -> dict[str, str]:
    """Return every row's sentence."""
    return dict(document.read(ROOT / ROWS).data)


def tests() -> dict[str, list[tuple[str, str]]]:
    """Return the tests that name a row with `@pytest.mark.attack`, as (file, function)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.attack":
                    for row in mark.args:
                        found.setdefault(ast.literal_eval(row), []).append((path.name, node.name))
    return found


def faults() -> list[str]:
    """Return rows without a test, and tests of no row."""
    known, tested = rows(), tests()
    missing = [f"{ROWS}: no test names {row} with @pytest.mark.attack." for row in known if row not in tested]
    return missing + [f"tests: {row} is no row of {ROWS}." for row in tested if row not in known]


def pages() -> Pages:
    """Return the page."""
    tested = tests()
    lines = [
        "# What is tested against",
        "",
        "Every line was found by attacking the library, and has tests that fail if it comes back. `SECURITY.md` says",
        "what is promised; `make fuzz CASES=10000` and `make kill KILLS=20` look for more.",
        "",
    ]
    for letter, title in PARTS.items():
        shown = [
            (row, sentence, ", ".join(f"`{file}::{name}`" for file, name in tested.get(row, ())))
            for row, sentence in rows().items()
            if row.startswith(letter)
        ]
        lines += [f"## {title}", "", table(("", "What was tried, or went wrong", "Tests"), shown), ""]
    return {"reference/tested.md": "\n".join(lines)}
