"""New parts and packages from templates, which run as written."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from mer_zoo import registry
from mer_zoo.commands import terminal
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.registry import resources

PACKAGE = "package"


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("kind", help="kind of part, or package")
    command.add_argument("name", help="its name, snake_case")
    command.add_argument("--output", metavar="DIR", type=Path, default=Path(), help="where to write (here)")


def run(options: argparse.Namespace) -> None:
    """Write a new part, or a package of parts, from a template."""
    for path in new(options.kind, options.name, options.output):
        terminal.say(path)


def new(kind: str, name: str, folder: Path | str = ".") -> list[Path]:
    """Write `NAME.py`, `NAME.yaml` and `test_NAME.py` from the templates of a kind; or the folder `NAME` of a package.

    A part is complete: its test passes, and `./NAME.py:Class` works in a recipe. The card beside the file holds what
    it promises. A package can be installed as written, and brings a part, a recipe, a suite and a test.

    Args:
        kind: kind of part, or `package`.
        name: in snake_case.
        folder: where to write; made if missing.

    Returns:
        the files written.

    Raises:
        MerZooError: no such kind, not a name, or a file is already there; then nothing is written.

    Example:
        >>> import tempfile
        >>> [path.name for path in new("fusion", "my_fusion", tempfile.mkdtemp())]
        ['my_fusion.py', 'my_fusion.yaml', 'test_my_fusion.py']
    """
    if kind not in (*registry.KINDS, PACKAGE):
        raise MerZooError(f"no kind of part named '{kind}'.{nearest(kind, [*registry.KINDS, PACKAGE])}")
    if not registry.is_name(name):
        hint = registry.snake_case(re.sub(r"\W+", "_", name)).strip("_")
        better = f", such as '{hint}'" if registry.is_name(hint) else ""
        what = "package" if kind == PACKAGE else "part"
        raise MerZooError(f"'{name}' is not a name for a {what}. Use small letters, digits and underscores{better}.")
    folder = Path(folder)
    filled = _package(name) if kind == PACKAGE else _part(kind, name)
    files = {folder / file: text for file, text in filled.items()}
    if there := [str(path) for path in files if path.exists()]:
        raise MerZooError(f"{', '.join(there)} exists already. Choose another name or folder.")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        for path in written:
            path.unlink()
        raise MerZooError(f"{folder}: cannot be written to: {error.strerror}. Choose another folder.") from None
    return list(files)


def _part(kind: str, name: str) -> dict[str, str]:
    """Return the texts of the three files of a part."""
    root = resources.folder("registry") / "templates"
    class_name = "".join(word.capitalize() for word in name.split("_"))
    words = {
        "kind": kind,
        "name": name,
        "Class": class_name,
        "function": name,
        "target": name if registry.KINDS[kind].function else class_name,
        "words": name.replace("_", " ").capitalize(),
    }
    templates = {
        f"{name}.py": root / kind / "part.py.template",
        f"{name}.yaml": root / kind / "card.yaml.template",
        f"test_{name}.py": root / "test.py.template",
    }
    return {file: _filled(path, words) for file, path in templates.items()}


def _package(name: str) -> dict[str, str]:
    """Return the texts of a package's files; its part is the template of a fusion."""
    root = resources.folder("registry") / "templates" / PACKAGE
    words = {"name": name, "distribution": name.replace("_", "-")}
    files = {}
    for path in sorted(root.rglob("*.template")):
        file = path.relative_to(root).as_posix().replace("NAME/", f"{name}/").removesuffix(".template")
        files[f"{name}/{file}"] = _filled(path, words)
    part = _part("fusion", "mix")
    card = part["mix.yaml"].replace("mix.py:", f"{name}.mix:").replace("paper: null", "paper: example2026mix")
    files[f"{name}/{name}/mix.py"] = part["mix.py"]
    files[f"{name}/{name}/cards/fusion/mix.yaml"] = card.replace("tags: []", f"tags: [{name}]")
    return files


def _filled(path: Path, words: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words[found[1]], path.read_text(encoding="utf-8"))
