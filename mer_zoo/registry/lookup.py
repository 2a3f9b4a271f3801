"""Names of parts as data: cards on disk, plugins by entry point, and the way from a name to a class.

Neither torch nor dgl is imported here; a class is imported only when `load` is asked for it.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mer_zoo.errors import MerZooError, at, nearest
from mer_zoo.registry import document, plugins, resources
from mer_zoo.registry.cards import Card, DeprecatedName, faults_of, is_name, make_card, read_card, snake_case
from mer_zoo.registry.faults import raised
from mer_zoo.registry.kinds import KINDS
from mer_zoo.registry.signature import settings

_registered: dict[tuple[str, str], tuple[Card, type]] = {}
_Cards = dict[tuple[str, str], Card]


@resources.remembered
def _built_in() -> tuple[_Cards, dict[str, str]]:
    """Cards of the library itself, and what is wrong with those that are broken, by `kind/name`."""
    found: _Cards = {}
    faults: dict[str, str] = {}
    root = resources.folder("registry")
    for kind in KINDS:
        for path in sorted((root / kind).glob("*.yaml")):
            try:  # read without places, which is fast; a broken card is read again, with them
                data = document.plain(path.read_text(encoding="utf-8"))
                sound = isinstance(data, dict) and not faults_of(kind, path.stem, data)
                found[kind, path.stem] = make_card(kind, path.stem, path, data) if sound else read_card(path, kind)
            except Exception:
                faults[f"{kind}/{path.stem}"] = _why(read_card, path, kind)
    return found, faults


def _why(function: Any, *arguments: Any) -> str:
    """Return the message of the error a call raises."""
    try:
        function(*arguments)
    except MerZooError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@resources.remembered
def _plugins() -> tuple[_Cards, dict[str, str], tuple[str, ...]]:
    """Cards that installed packages bring, what is wrong with single ones by `kind/name`, and with whole packages."""
    found: _Cards = {}
    faults: dict[str, str] = {}
    known, broken = plugins.plugins()
    twice = []
    for plugin in known:
        for kind, path in ((k, path) for k in KINDS for path in sorted((plugin.folder / k).glob("*.yaml"))):
            name = f"{plugin.name}/{path.stem}"
            if (kind, name) in found:
                other = found[kind, name].origin
                twice.append(f"plugin '{plugin.name}': {kind}/{name} comes from {other} and from {path}. Rename one.")
                continue
            try:
                found[kind, name] = read_card(path, kind, prefix=f"{plugin.name}/")
            except Exception:
                faults[f"{kind}/{name}"] = _why(read_card, path, kind)
    return found, faults, (*broken, *twice)


def plugin_faults() -> tuple[str, ...]:
    """Return what is wrong with installed plugins, one message each."""
    _, faults, broken = _plugins()
    return (*broken, *(f"plugin card {card}: {fault}" for card, fault in faults.items()))


def card_faults() -> tuple[str, ...]:
    """Return what is wrong with the library's own cards, and with names that two cards claim, one message each."""
    found = list(_built_in()[1].values())
    for kind in KINDS:
        claims: dict[str, str] = {}
        for card in cards(kind):
            for name in (card.name, *card.aliases):
                if name in claims:
                    found.append(f"{card.origin}: {kind} '{name}' is also claimed by {claims[name]}. Rename one.")
                claims[name] = card.origin
    return tuple(found)


def cards(kind: str | None = None, pattern: str = "*", tag: str | None = None) -> list[Card]:
    """Return all known cards, sorted, optionally of one kind, with a wildcard on the name, or with a tag.

    Example:
        >>> [card.name for card in cards("fusion", "conc*")]
        ['concat']
    """
    if kind is not None and kind not in KINDS:
        raise MerZooError(f"no kind of part named '{kind}'.{nearest(kind, KINDS)}")
    everything = {**_built_in()[0], **_plugins()[0], **{key: card for key, (card, _) in _registered.items()}}
    chosen = [
        card
        for card in everything.values()
        if kind in (None, card.kind) and fnmatch.fnmatch(card.name, pattern) and (tag is None or tag in card.tags)
    ]
    return sorted(chosen, key=lambda card: (list(KINDS).index(card.kind), card.name))


def split(name: str) -> tuple[str, str]:
    """Take `kind/name` apart at its first slash.

    Example:
        >>> split("fusion/acme/gated"), split("layer/./mine.py:Mine")
        (('fusion', 'acme/gated'), ('layer', './mine.py:Mine'))
    """
    kind, _, rest = name.partition("/")
    if kind not in KINDS:
        raise MerZooError(f"{name}: no kind of part named '{kind}'.{nearest(kind, KINDS)}")
    if not rest:
        raise MerZooError(f"{name}: want {kind}/NAME. See `mer-zoo list {kind}`.")
    return kind, rest


def find(kind: str, name: str, place: str = "") -> Card:
    """Resolve a name: built-in or registered, plugin `pkg/name`, `module:Class`, `./file.py:Class`.

    A file may have its card beside it (`file.yaml`), as `mer-zoo new` writes it.

    Args:
        kind: kind of part.
        name: what the user wrote.
        place: put in front of an error, such as `mine.yaml:7:12 model.fuse`.
    """
    lead = at(place)
    if kind not in KINDS:
        raise MerZooError(f"{lead}no kind of part named '{kind}'.{nearest(kind, KINDS)}")
    known = {card.name: card for card in cards(kind)}
    if name in known:
        return known[name]
    for card in known.values():
        if name in card.aliases:
            warnings.warn(f"{lead}{kind} '{name}' is now called '{card.name}'.", DeprecatedName, stacklevel=2)
            return card
    broken = {**_built_in()[1], **_plugins()[1]}
    if f"{kind}/{name}" in broken:
        raise MerZooError(f"{lead}the card of {kind} '{name}' is broken.\n{broken[f'{kind}/{name}']}")
    if names_class(name):
        return _by_path(kind, name)
    raise MerZooError(f"{lead}no {kind.replace('_', ' ')} named '{name}'.{_hint(kind, name, known)}")


def names_class(name: str) -> bool:
    """Return whether a text has the form `module:Class` or `./file.py:Class`; a Windows path has another.

    Example:
        >>> [names_class(text) for text in ("acme.parts:Mine", "./mine.py:Mine", r"C:\\mine.py:Mine", r"C:\\data")]
        [True, True, True, False]
    """
    module, _, cls = name.rpartition(":")
    is_file = module.endswith(".py")
    return cls.isidentifier() and (is_file or all(part.isidentifier() for part in module.split(".")))


def _by_path(kind: str, name: str) -> Card:
    module, _, cls = name.rpartition(":")
    beside = Path(module).with_suffix(".yaml")
    if module.endswith(".py") and os.path.isfile(beside):
        card = read_card(beside, kind)
        if Path(card.target.rpartition(":")[0]).resolve() == Path(module).resolve() and card.target.endswith(f":{cls}"):
            return replace(card, name=name, target=name)
    return Card(kind=kind, name=name, target=name, summary=f"{name}, by its path")


def _hint(kind: str, name: str, known: Iterable[str]) -> str:
    """Return where else the name might be: close by, or among the other kinds."""
    command = f" See `mer-zoo list {kind}`."
    package = name.partition("/")[0]
    if is_name(package) and "/" in name and plugins.owner(name) is None:
        others = ", ".join(plugin.name for plugin in plugins.plugins()[0]) or "none"
        return f" No installed package brings parts called '{package}/...' (installed: {others}). Install it."
    if ":" in name:
        return " To name a class, write 'module:Class' or './file.py:Class'."
    if name.endswith(".py"):
        return f" To use a file, name its class too: '{name}:Class'."
    if difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return nearest(name, known) + command
    elsewhere = [card.kind for card in cards() if card.name == name]
    if elsewhere:
        return f" '{name}' is a part of another kind: {', '.join(elsewhere)}.{command}"
    return nearest(name, known) + command


def load(card: Card, place: str = "") -> type:
    """Import the class a card names."""
    lead = at(place)
    if (card.kind, card.name) in _registered:
        return _registered[card.kind, card.name][1]
    cls = imported(card.target, card.id, place)
    if not inspect.isclass(cls) and not (KINDS[card.kind].function and callable(cls)):
        raise MerZooError(f"{lead}{card.id}: '{card.target}' is not a class. Name the class itself.")
    return cls


def imported(target: str, owner: str, place: str = "") -> Any:
    """Import what `module:Name` or `./file.py:Name` names.

    Args:
        target: the path.
        owner: what errors call it.
        place: put in front of an error.

    Raises:
        MerZooError: there is no such thing, or importing the module fails.

    Example:
        >>> imported("fractions:Fractoin", "mine")
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: mine: 'fractions' has no 'Fractoin'. Did you mean 'Fraction'?
    """
    lead = at(place)
    module_name, _, class_name = target.rpartition(":")
    try:
        module = _module_from_file(module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
    except MerZooError as error:
        raise MerZooError(f"{lead}{error}") from None
    except ModuleNotFoundError as error:
        raise MerZooError(
            f"{lead}{owner}: cannot import '{module_name}': no module named '{error.name}'. Is it installed?"
        ) from error
    except (Exception, SystemExit) as error:
        raise MerZooError(f"{lead}{owner}: importing '{module_name}' fails: {raised(error)}") from error
    found = getattr(module, class_name, None)
    if found is None:
        raise MerZooError(f"{lead}{owner}: '{module_name}' has no '{class_name}'.{nearest(class_name, vars(module))}")
    return found


def _module_from_file(path_name: str) -> Any:
    path = Path(path_name).resolve()
    if not os.path.isfile(path):  # False for names too long to be one
        raise MerZooError(f"{path_name}: no such file.")
    # keyed by time too, so that a notebook sees a file that was edited
    name = "mer_zoo_file_" + hashlib.sha256(f"{path} {path.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def register(kind: str, cls: type, name: str | None = None, **card: Any) -> Card:
    """Give a class a name for this Python session (notebooks); returns its card.

    Args:
        kind: kind of part.
        cls: the class, a plain one.
        name: defaults to the class name in snake_case.
        card: further card fields, such as `promises=("causal",)`.

    Raises:
        MerZooError: the name is taken by another part, or a setting has no type.
    """
    if kind not in KINDS:
        raise MerZooError(f"no kind of part named '{kind}'.{nearest(kind, KINDS)}")
    name = name or snake_case(cls.__name__)
    target = f"{cls.__module__}:{cls.__qualname__}"
    taken = _built_in()[0].get((kind, name)) or _plugins()[0].get((kind, name))
    if (kind, name) in _registered and _registered[kind, name][0].target != target:  # the same cell may run again
        taken = _registered[kind, name][0]
    if taken is not None:
        raise MerZooError(f"{kind} '{name}' exists already ({taken.target}). Choose another name.")
    summary = (inspect.getdoc(cls) or cls.__name__).splitlines()[0]
    data = {"target": target, "summary": summary, "paper": None, **card}
    if faults := faults_of(kind, name, data):
        raise MerZooError("\n".join(f"{kind} '{name}': {text}" for _, text in faults))
    settings(kind, cls)  # an untyped setting is refused here, not in the middle of a run
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    made = Card(kind=kind, name=name, **values)
    _registered[kind, name] = (made, cls)
    return made


def code(card: Card) -> str | None:
    """Return what stands for a part's code in a run's identity: None for a built-in part in its first version.

    For parts of others it is a digest of their source, so that an edited part is trained anew, never skipped.
    """
    if (card.kind, card.name) in _built_in()[0]:
        return f"version {card.version}" if card.version > 1 else None
    return source_digest(load(card))


def source_digest(made: Any) -> str | None:
    """Return a digest of the source that a class or function stands in; None where there is no source.

    Args:
        made: the class or function.
    """
    try:  # in a notebook or a script the module holds everything else as well
        source = inspect.getsource(made if made.__module__ == "__main__" else sys.modules[made.__module__])
    except (OSError, TypeError, KeyError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def session() -> dict[tuple[str, str], tuple[Card, type]]:
    """Return what `register` added in this Python session, to hand it to another process."""
    return dict(_registered)


def resume(session: Mapping[tuple[str, str], tuple[Card, type]]) -> None:
    """Take over what was registered in another process."""
    _registered.update(session)
