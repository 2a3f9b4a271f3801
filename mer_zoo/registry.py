"""Names of parts as data: cards on disk, plugins by entry point, and the way from a name to a class.

Neither torch nor dgl is imported here; a class is imported only when `load` is asked for it.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import typing
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_zoo import document, resources
from mer_zoo.errors import MerZooError, nearest

ENTRY_POINT_GROUP = "mer_zoo.cards"

FACTS: dict[str, tuple[str, ...]] = {
    "dataset": (),
    "extractor": (),
    "encoder": ("width", "speakers"),
    "graph": ("node_types", "speakers"),
    "edge_weight": ("width", "relations"),
    "layer": ("width", "relations", "speakers"),
    "fusion": ("widths",),
    "balancing": ("modalities", "classes"),
    "head": ("width", "classes"),
    "loss": ("modalities", "class_counts"),
    "kernel": (),
}
"""For each kind of part, the facts its `__init__` may ask for as positional arguments, by name."""

KINDS = tuple(FACTS)


class DeprecatedName(DeprecationWarning):
    """A part was asked for by an alias; the message gives its present name."""


@dataclass(frozen=True)
class Card:
    """What the registry knows of a part without importing it: identity and literature.

    Inputs:
        kind, name: `fusion`, `gated`; a plugin's name is `package/name`.
        target: `module:Class`, or `path/to/file.py:Class`.
        summary: one sentence.
        paper: key into `references.bib`, or None.
        equation: LaTeX, or "".
        tags: words to search by.
        promises: properties that `check_part` proves, such as `causal`.
        dead: parameters that by the published definition get no gradient.
        version: raised when the part computes something else.
        aliases: former names; they still resolve, with a warning.
        origin: file the card was read from.

    Example:
        >>> find("fusion", "concat").target
        'mer_zoo.fusion.concat:Concat'
    """

    kind: str
    name: str
    target: str
    summary: str = ""
    paper: str | None = None
    equation: str = ""
    tags: tuple[str, ...] = ()
    promises: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    version: int = 1
    aliases: tuple[str, ...] = ()
    origin: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """`kind/name`."""
        return f"{self.kind}/{self.name}"


_FIELDS = {"target": str, "summary": str, "paper": (str, type(None)), "equation": str, "tags": list, "promises": list}
_FIELDS |= {"dead": list, "version": int, "aliases": list}
_registered: dict[tuple[str, str], tuple[Card, type]] = {}


def read_card(path: Path, kind: str, prefix: str = "") -> Card:
    """Read one card file; the file name is the name. Every fault is named with line and column."""
    page = document.read(path)
    data = page.data
    if not isinstance(data, dict):
        raise MerZooError(f"{page.name}: a card is a mapping with at least 'target' and 'summary'.")
    faults = []
    for key, value in data.items():
        if key not in _FIELDS:
            faults.append(f"{page.place([key])} unknown key '{key}'.{nearest(str(key), _FIELDS)}")
        elif not isinstance(value, _FIELDS[key]):  # type: ignore[arg-type]
            faults.append(f"{page.place([key])} {key}: {value!r} is not of the right type. See the card template.")
        elif isinstance(value, list) and not all(isinstance(v, str) for v in value):
            faults.append(f"{page.place([key])} {key}: want a list of words.")
    faults += [f"{page.name} '{key}' is missing. Add it." for key in ("target", "summary", "paper") if key not in data]
    if "target" in data and ":" not in str(data["target"]):
        faults.append(f"{page.place(['target'])} target: want 'module:Class', not '{data['target']}'.")
    if faults:
        raise MerZooError("\n".join(faults))
    return _card(kind, prefix + path.stem, path, data)


def _card(kind: str, name: str, path: Path, data: Mapping[str, Any]) -> Card:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Card(kind=kind, name=name, origin=str(path), **values)


@functools.cache
def _built_in() -> dict[tuple[str, str], Card]:
    """Cards of the library itself. The contract suite proves them well-formed, so they are read without places."""
    found = {}
    root = resources.folder("registry")
    for kind in KINDS:
        for path in sorted((root / kind).glob("*.yaml")):
            data = document.plain(path.read_text(encoding="utf-8"))
            found[kind, path.stem] = _card(kind, path.stem, path, data)
    return found


@functools.cache
def _plugins() -> tuple[dict[tuple[str, str], Card], tuple[str, ...]]:
    """Cards that installed packages bring, and what is wrong with the packages that are broken."""
    found: dict[tuple[str, str], Card] = {}
    faults = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            root = _package_folder(point.value)
            for kind in KINDS:
                for path in sorted((root / kind).glob("*.yaml")):
                    card = read_card(path, kind, prefix=f"{point.name}/")
                    if (kind, card.name) in found:
                        other = found[kind, card.name].origin
                        raise MerZooError(f"{path}: {card.id} is already brought by {other}. Rename one.")
                    found[kind, card.name] = card
        except MerZooError as error:
            faults.append(f"plugin '{point.name}': {error}")
        except Exception as error:
            faults.append(f"plugin '{point.name}' ({point.value}): {type(error).__name__}: {error}")
    return found, tuple(faults)


def _package_folder(value: str) -> Path:
    """Folder of cards named by an entry point `package` or `package:subfolder`, found without importing it."""
    module, _, subfolder = value.partition(":")
    top = module.split(".")[0]
    spec = importlib.util.find_spec(top)  # a top-level name is found without running any of its code
    if spec is None or not spec.submodule_search_locations:
        raise MerZooError(f"package '{top}' is not importable. Reinstall the plugin.")
    root = Path(next(iter(spec.submodule_search_locations)), *module.split(".")[1:], *subfolder.split("."))
    if not root.is_dir():
        raise MerZooError(f"card folder {root} is missing. Ship it as package data.")
    return root


def refresh() -> None:
    """Forget what was read from disk (for tests and notebooks that add cards while running)."""
    _built_in.cache_clear()
    _plugins.cache_clear()


def plugin_faults() -> tuple[str, ...]:
    """Return what is wrong with installed plugins, one sentence each."""
    return _plugins()[1]


def cards(kind: str | None = None, pattern: str = "*", tag: str | None = None) -> list[Card]:
    """Return all known cards, sorted, optionally of one kind, with a wildcard on the name, or with a tag.

    Example:
        >>> [card.name for card in cards("fusion", "conc*")]
        ['concat']
    """
    if kind is not None and kind not in KINDS:
        raise MerZooError(f"no kind of part named '{kind}'.{nearest(kind, KINDS)}")
    everything = {**_built_in(), **_plugins()[0], **{key: card for key, (card, _) in _registered.items()}}
    chosen = [
        card
        for card in everything.values()
        if kind in (None, card.kind) and fnmatch.fnmatch(card.name, pattern) and (tag is None or tag in card.tags)
    ]
    return sorted(chosen, key=lambda card: (KINDS.index(card.kind), card.name))


def find(kind: str, name: str, place: str = "") -> Card:
    """Resolve a name: built-in or registered, plugin `pkg/name`, `module:Class`, `./file.py:Class`.

    Args:
        kind: kind of part.
        name: what the user wrote.
        place: put in front of an error, such as `mine.yaml:7:12 model.fuse`.
    """
    lead = f"{place}: " if place else ""
    if kind not in KINDS:
        raise MerZooError(f"{lead}no kind of part named '{kind}'.{nearest(kind, KINDS)}")
    known = {card.name: card for card in cards(kind)}
    if name in known:
        return known[name]
    for card in known.values():
        if name in card.aliases:
            warnings.warn(f"{lead}{kind} '{name}' is now called '{card.name}'.", DeprecatedName, stacklevel=2)
            return card
    if ":" in name:
        return Card(kind=kind, name=name, target=name, summary=f"{name}, by its path")
    elsewhere = [other for other in KINDS if other != kind and any(c.name == name for c in cards(other))]
    hint = f" '{name}' is a {elsewhere[0]}." if elsewhere else nearest(name, known)
    raise MerZooError(f"{lead}no {kind.replace('_', ' ')} named '{name}'.{hint} See `mer-zoo list {kind}`.")


def load(card: Card, place: str = "") -> type:
    """Import the class a card names."""
    lead = f"{place}: " if place else ""
    if (card.kind, card.name) in _registered:
        return _registered[card.kind, card.name][1]
    module_name, _, class_name = card.target.rpartition(":")
    try:
        module = _module_from_file(module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
    except MerZooError as error:
        raise MerZooError(f"{lead}{error}") from None
    except ModuleNotFoundError as error:
        raise MerZooError(
            f"{lead}{card.id}: cannot import '{module_name}': no module named '{error.name}'. Is it installed?"
        ) from error
    except Exception as error:
        raise MerZooError(
            f"{lead}{card.id}: importing '{module_name}' fails: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, class_name)
    except AttributeError:
        raise MerZooError(
            f"{lead}{card.id}: '{module_name}' has no '{class_name}'.{nearest(class_name, vars(module))}"
        ) from None


def _module_from_file(path_name: str) -> Any:
    path = Path(path_name).resolve()
    if not path.is_file():
        raise MerZooError(f"{path_name}: no such file.")
    name = f"mer_zoo_file_{abs(hash(str(path)))}"
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
    name = name or "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("_")
    if (kind, name) in _built_in() or (kind, name) in _plugins()[0]:
        raise MerZooError(f"{kind} '{name}' exists already ({find(kind, name).target}). Choose another name.")
    settings(kind, cls)  # an untyped setting is refused here, not in the middle of a run
    summary = card.pop("summary", (inspect.getdoc(cls) or cls.__name__).splitlines()[0])
    made = Card(kind=kind, name=name, target=f"{cls.__module__}:{cls.__qualname__}", summary=summary, **card)
    _registered[kind, name] = (made, cls)
    return made


def facts(kind: str, cls: type) -> tuple[str, ...]:
    """Return the facts that a part's `__init__` asks for: its positional arguments."""
    names = []
    for parameter in _parameters(cls):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.name not in FACTS[kind]:
                allowed = ", ".join(FACTS[kind]) or "none"
                raise MerZooError(
                    f"{cls.__module__}:{cls.__qualname__}: positional argument '{parameter.name}' is not a fact that a "
                    f"{kind} can be given (facts: {allowed}). If it is a setting, put it after `*`."
                )
            names.append(parameter.name)
    return tuple(names)


@dataclass(frozen=True)
class Setting:
    """One keyword-only argument of a part: its name, type and default."""

    name: str
    type: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty


def settings(kind: str, cls: type) -> dict[str, Setting]:
    """Return a part's settings, read from the typed keyword-only arguments of its `__init__`."""
    facts(kind, cls)
    try:
        hints = typing.get_type_hints(cls.__init__ if inspect.isclass(cls) else cls)
    except Exception as error:
        raise MerZooError(f"{cls.__module__}:{cls.__qualname__}: a type annotation cannot be read: {error}") from None
    found = {}
    for parameter in _parameters(cls):
        if parameter.kind is parameter.VAR_KEYWORD or parameter.kind is parameter.VAR_POSITIONAL:
            raise MerZooError(
                f"{cls.__module__}:{cls.__qualname__}: `*{parameter.name}` hides settings. Name each one."
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name not in hints:
                raise MerZooError(
                    f"{cls.__module__}:{cls.__qualname__}: setting '{parameter.name}' has no type. Annotate it, "
                    f"as in `{parameter.name}: int = 1`."
                )
            found[parameter.name] = Setting(parameter.name, hints[parameter.name], parameter.default)
    return found


def _parameters(cls: type) -> list[inspect.Parameter]:
    if not inspect.isclass(cls):  # a dataset may be a function
        return list(inspect.signature(cls).parameters.values())
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return []
    named = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    if all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in named):  # nn.Module's own __init__
        return []
    return named


@functools.cache
def schema(kind: str, cls: type) -> Any:
    """Return the strict pydantic model of a part's settings: unknown keys are errors, defaults are filled in."""
    import pydantic

    fields = {
        s.name: (s.type, ... if s.required else pydantic.Field(default=s.default, validate_default=True))
        for s in settings(kind, cls).values()
    }
    config = pydantic.ConfigDict(extra="forbid", strict=False, arbitrary_types_allowed=True, allow_inf_nan=False)
    return pydantic.create_model(f"{cls.__name__}Settings", __config__=config, **fields)  # type: ignore[call-overload]


def fill(card: Card, given: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Check settings against a part's schema and return them all, defaults written in.

    Raises:
        MerZooError: an unknown or ill-typed setting, with the nearest match.
    """
    import pydantic

    cls = load(card, place)
    model = schema(card.kind, cls)
    try:
        return model.model_validate(dict(given)).model_dump(mode="json")
    except pydantic.ValidationError as error:
        raise MerZooError("\n".join(_faults(error, model.model_fields, place or card.id, f"{card.id}"))) from None


def _faults(error: Any, known: Iterable[str], place: str, owner: str) -> list[str]:
    lines = []
    for fault in error.errors():
        path = ".".join(str(p) for p in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{place}: {owner} has no setting '{path}'.{nearest(path, known) or ' It has none.'}")
        elif fault["type"] == "missing":
            lines.append(f"{place}: {owner} needs the setting '{path}'. Add it.")
        else:
            lines.append(f"{place}: setting '{path}' of {owner}: {fault['msg']} (given: {fault['input']!r}).")
    return lines


def build(card: Card, given: Mapping[str, Any], known_facts: Mapping[str, Any], place: str = "") -> Any:
    """Make a part: facts by position, settings by name.

    Raises:
        MerZooError: the settings do not fit, or the part refuses them (its `ValueError` is shown as the reason).
    """
    cls = load(card, place)
    filled = fill(card, given, place)
    positional = [known_facts[name] for name in facts(card.kind, cls)]
    try:
        return cls(*positional, **filled)
    except MerZooError as error:
        raise MerZooError(f"{place + ': ' if place else ''}{card.id}: {error}") from None
