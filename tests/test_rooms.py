"""The drawing of the house: rooms in one order, imports pointing down only, no circle, no file too long to read.

A room is a package or a module right below `mer_zoo/`. Every import counts, also one inside a function or for type
checkers alone. The lists of exceptions only shrink: one that is no longer needed fails too.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROOMS = (
    *("mer_zoo", "errors", "showing", "registry", "results", "data", "graph", "batch", "kernel", "corpus", "parts"),
    *("model", "training", "inside", "comparison", "tuning", "checking", "api", "commands", "cli", "__main__"),
)
"""From the ground up: a room imports from rooms before it. `mer_zoo` is `mer_zoo/__init__.py`."""

UP: set[tuple[str, str]] = set()
"""Arrows that still run up: (module, what it imports)."""

LONGEST = 400
LONG: set[str] = set()
"""Files that still have more lines."""


def imports(root):
    """Module -> modules of `mer_zoo` below `root` that it imports."""
    files = {}
    for file in sorted((root / "mer_zoo").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    found = {module: set() for module in files}
    for module, file in files.items():
        package = module if file.stem == "__init__" else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                home = ".".join([*above, *([node.module] if node.module else [])])
                whole = {f"{home}.{alias.name}" for alias in node.names}
                found[module] |= {name if name in files else home for name in whole}
    return {module: (names & set(files)) - {module} for module, names in found.items()}


def room(module):
    return module.split(".")[1] if "." in module else module


def up(arrows, rooms=ROOMS):
    """Imports of a higher room."""
    return {
        (module, other)
        for module, others in arrows.items()
        for other in others
        if rooms.index(room(other)) > rooms.index(room(module))
    }


def circles(arrows):
    """Sets of modules that reach each other by imports, sorted."""

    def reached(module):
        seen, todo = set(), [module]
        while todo:
            new = arrows[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    reach = {module: reached(module) for module in arrows}
    together = {module: {other for other in reach[module] if module in reach[other]} for module in arrows}
    return {tuple(sorted(group)) for module, group in together.items() if module in group}


@pytest.fixture(scope="module")
def arrows():
    return imports(ROOT)


def test_every_room_has_its_place(arrows):
    assert {room(module) for module in arrows} == set(ROOMS)


def test_imports_point_down(arrows):
    assert up(arrows) == UP


def test_no_modules_import_in_a_circle(arrows):
    assert circles(arrows) == set()


def test_no_file_is_too_long():
    files = sorted((ROOT / "mer_zoo").rglob("*.py"))
    long = {f.relative_to(ROOT).as_posix() for f in files if len(f.read_text(encoding="utf-8").splitlines()) > LONGEST}
    assert long == LONG


def test_the_page_of_the_architecture_names_every_room():
    text = (ROOT / "docs/understand/architecture.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = [word.strip("`/ ").removesuffix(".py") for cell in table for word in cell.split()]
    assert named == [name for name in reversed(ROOMS) if name != "mer_zoo"]


def test_every_kind_of_import_is_seen(tmp_path):
    modules = {
        "__init__": "",
        "low/__init__": "",
        "low/a": "def late():\n    from mer_zoo.high import b\n",
        "low/c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mer_zoo.high.b\n",
        "low/d": "from ..high.b import thing\nfrom . import a\n",
        "high/__init__": "",
        "high/b": "from mer_zoo.low.a import late\n",
    }
    for name, text in modules.items():
        file = tmp_path / "mer_zoo" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = imports(tmp_path)
    assert found["mer_zoo.low.d"] == {"mer_zoo.high.b", "mer_zoo.low.a"}
    b = "mer_zoo.high.b"
    assert up(found, ("low", "high")) == {("mer_zoo.low.a", b), ("mer_zoo.low.c", b), ("mer_zoo.low.d", b)}
    assert circles(found) == {("mer_zoo.high.b", "mer_zoo.low.a")}
    with pytest.raises(ValueError, match="not in"):
        up(found, ("low",))
