"""Installed packages that bring cards, recipes, suites and papers, found without running any of their code.

A package names its folder by an entry point of the group `mer_zoo.cards`, as in `acme = "acme_mer:cards"`. In it,
`KIND/NAME.yaml` are cards, `recipes/NAME.yaml` or `recipes/NAME/VARIANT.yaml` recipes, `suites/NAME.yaml` suites, and
`references.bib` the papers. All of them are called `acme/NAME`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mer_zoo.errors import MerZooError, nearest
from mer_zoo.registry import resources
from mer_zoo.registry.cards import is_name
from mer_zoo.registry.kinds import KINDS

ENTRY_POINT_GROUP = "mer_zoo.cards"
BESIDE_CARDS = ("recipes", "suites")


@dataclass(frozen=True)
class Plugin:
    """What one entry point names.

    Attributes:
        name: what its parts' names begin with.
        folder: of its cards.
        package: the distribution that brings it, as pip calls it.
        version: of that distribution.
    """

    name: str
    folder: Path
    package: str
    version: str

    def files(self, folder: str) -> dict[str, Path]:
        """Return the YAML files in `recipes` or `suites` by name; `default` goes by its folder's name alone."""
        found = {}
        root = self.folder / folder
        for path in sorted((*root.glob("*.yaml"), *root.glob("*/*.yaml"))):
            words = [word for word in path.relative_to(root).with_suffix("").parts if word != "default"]
            found["/".join([self.name, *words])] = path
        return found


@resources.remembered
def plugins() -> tuple[tuple[Plugin, ...], tuple[str, ...]]:
    """Return the installed plugins, and what is wrong with those that are broken."""
    found: list[Plugin] = []
    faults = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        here = f"plugin '{point.name}'"
        try:
            folder = _package_folder(point.value)
        except Exception as error:
            reason = str(error) if isinstance(error, MerZooError) else f"{type(error).__name__}: {error}"
            faults.append(f"{here} ({point.value}): {reason}")
            continue
        of = point.dist
        plugin = Plugin(point.name, folder, of.name if of else point.value.split(":")[0], of.version if of else "")
        faults += [f"{here}: {fault}" for fault in _faults(plugin)]
        found.append(plugin)
    return tuple(found), tuple(faults)


def files(folder: str) -> dict[str, Path]:
    """Return the `recipes`, or `suites`, of all plugins by name.

    Example:
        >>> files("recipes").get("nobody/nothing") is None
        True
    """
    found: dict[str, Path] = {}
    for plugin in plugins()[0]:
        found = {**plugin.files(folder), **found}
    return found


def owner(name: str) -> Plugin | None:
    """Return the plugin that a name `plugin/...` belongs to, if it is installed."""
    first = name.partition("/")[0]
    return next((plugin for plugin in plugins()[0] if plugin.name == first), None)


def _package_folder(value: str) -> Path:
    """Folder named by an entry point `package` or `package:subfolder`, found without importing it."""
    module, _, subfolder = value.partition(":")
    top = module.split(".")[0]
    spec = importlib.util.find_spec(top)  # a top-level name is found without running any of its code
    if spec is None or not spec.submodule_search_locations:
        raise MerZooError(f"package '{top}' is not importable. Reinstall the plugin.")
    root = Path(next(iter(spec.submodule_search_locations)), *module.split(".")[1:], *subfolder.split("."))
    if not root.is_dir():
        raise MerZooError(f"card folder {root} is missing. Ship it as package data.")
    return root


def _faults(plugin: Plugin) -> list[str]:
    """What would be overlooked: an empty folder, and folders with a name that means nothing."""
    if not is_name(plugin.name):
        return [f"'{plugin.name}' is not a name. Use small letters, digits and underscores."]
    known = (*KINDS, *BESIDE_CARDS)
    with_files = {path.relative_to(plugin.folder).parts[0] for path in plugin.folder.glob("*/**/*.yaml")}
    strange = sorted(with_files - set(known))
    faults = [f"{plugin.folder / name}: no kind of part named '{name}'.{nearest(name, known)}" for name in strange]
    if not with_files:
        faults.append(f"no cards in {plugin.folder}. They belong into {plugin.folder}/KIND/NAME.yaml.")
    return faults
