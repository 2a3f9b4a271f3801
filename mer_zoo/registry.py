"""Names of parts as data: cards on disk, plugins by entry point, and the way from a name to a class.

Neither torch nor dgl is imported here; a class is imported only when `load` is asked for it.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import keyword
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
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
    "kernel": ("view", "tables", "index", "plan"),
}
"""For each kind of part, the facts its `__init__` may ask for as positional arguments, by name."""

KINDS = tuple(FACTS)

PROMISES: dict[str, str] = {
    "capturable": "Never reads a value back to the host, nor branches on one, forward and backward.",
    "causal": "What an utterance gets depends on it and earlier ones only; a graph has no edge from the future.",
    "linear_size": "The number of edges grows linearly with the length of a dialogue.",
    "modality_permutation_invariant": "Exchanging the states of two modalities does not change the result.",
    "modality_subset_safe": "Works for any of the modalities, one alone included.",
    "speaker_relabelling_invariant": "Numbering the speakers differently does not change the result.",
    "unstackable": "torch.func.vmap over stacked weights is not possible, so seeds are trained one by one.",
    "utterance_permutation_equivariant": "Reordering the utterances of a dialogue reorders the result alike.",
}
"""What a card may promise, and `check_part` then proves."""

PROMISED_BY: dict[str, tuple[str, ...]] = {
    "capturable": ("encoder", "edge_weight", "layer", "fusion", "head", "loss", "kernel"),
    "causal": ("encoder", "graph", "edge_weight", "layer", "fusion", "head"),
    "linear_size": ("graph",),
    "modality_permutation_invariant": ("fusion",),
    "modality_subset_safe": ("graph", "fusion"),
    "speaker_relabelling_invariant": ("encoder", "graph", "fusion", "head"),
    "unstackable": ("encoder", "edge_weight", "layer", "fusion", "head", "loss"),
    "utterance_permutation_equivariant": ("encoder", "fusion", "head"),
}
"""The kinds of parts for which a promise can be proved."""


class DeprecatedName(FutureWarning):
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

    @property
    def stackable(self) -> bool:
        """Whether several seeds, or modalities, of the part can be one program."""
        return "unstackable" not in self.promises

    @property
    def capturable(self) -> bool:
        """Whether the part promises that a CUDA graph can hold it."""
        return "capturable" in self.promises


_FIELDS: dict[str, tuple[type, ...]] = {
    "target": (str,),
    "summary": (str,),
    "paper": (str, type(None)),
    "equation": (str,),
    "tags": (list, tuple),
    "promises": (list, tuple),
    "dead": (list, tuple),
    "version": (int,),
    "aliases": (list, tuple),
}
_registered: dict[tuple[str, str], tuple[Card, type]] = {}
_Cards = dict[tuple[str, str], Card]


def read_card(path: Path, kind: str, prefix: str = "") -> Card:
    """Read one card file; the file name is the name. Every fault is named with line and column."""
    page = document.read(path)
    if not isinstance(page.data, dict):
        raise MerZooError(f"{page.name}: a card is a mapping with at least 'target', 'summary' and 'paper'.")
    faults = [f"{page.place(key)} {text}" for key, text in _card_faults(kind, path.stem, page.data)]
    if faults:
        raise MerZooError("\n".join(faults))
    return _card(kind, prefix + path.stem, path, page.data)


def _card_faults(kind: str, name: str, data: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Return (key, what is wrong with it) of a card's data."""
    faults: list[tuple[tuple[str, ...], str]] = []
    if not is_name(name):
        faults.append(((), f"'{name}' is not a name. Use small letters, digits and underscores."))
    for key in ("target", "summary", "paper"):
        if key not in data:
            faults.append(((), f"'{key}' is missing. Add it{' (null if there is none)' if key == 'paper' else ''}."))
    for key, value in data.items():
        if key not in _FIELDS:
            faults.append(((key,), f"unknown key '{key}'.{nearest(str(key), _FIELDS)}"))
        elif not isinstance(value, _FIELDS[key]) or isinstance(value, bool):
            wanted = " or ".join(sorted({_WORDS[t] for t in _FIELDS[key]}))
            faults.append(((key,), f"{key}: want {wanted}, not {value!r}."))
        elif isinstance(value, (list, tuple)) and not all(isinstance(v, str) for v in value):
            faults.append(((key,), f"{key}: want a list of words, not {value!r}."))
        elif key == "target" and not all(str(value).rpartition(":")):
            faults.append(((key,), f"target: want 'module:Class' or 'file.py:Class', not '{value}'."))
        elif key == "promises":
            faults += [((key,), fault) for fault in promise_faults(kind, data[key])]
    return faults


_WORDS = {str: "text", type(None): "null", list: "a list of words", tuple: "a list of words", int: "a whole number"}


def promise_faults(kind: str, promises: Iterable[str]) -> list[str]:
    """Return one sentence for every promise that does not exist, or cannot be proved of this kind of part."""
    faults = []
    for promise in promises:
        if promise not in PROMISES:
            faults.append(f"no promise named '{promise}'.{nearest(promise, PROMISES)}")
        elif kind not in PROMISED_BY[promise]:
            kinds = ", ".join(PROMISED_BY[promise])
            faults.append(f"'{promise}' cannot be promised by {a(kind)}, only by: {kinds}.")
    return faults


def a(kind: str) -> str:
    """Return a kind with its article: `an encoder`, `an edge weight`."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind.replace('_', ' ')}"


def _card(kind: str, name: str, path: Path, data: Mapping[str, Any]) -> Card:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    module, _, cls = values["target"].rpartition(":")
    if module.endswith(".py"):  # a file is found from its card
        values["target"] = f"{path.parent / module}:{cls}"
    return Card(kind=kind, name=name, origin=str(path), **values)


@functools.cache
def _built_in() -> tuple[_Cards, dict[str, str]]:
    """Cards of the library itself, and what is wrong with those that are broken, by `kind/name`."""
    found: _Cards = {}
    faults: dict[str, str] = {}
    root = resources.folder("registry")
    for kind in KINDS:
        for path in sorted((root / kind).glob("*.yaml")):
            try:  # read without places, which is fast; a broken card is read again, with them
                data = document.plain(path.read_text(encoding="utf-8"))
                sound = isinstance(data, dict) and not _card_faults(kind, path.stem, data)
                found[kind, path.stem] = _card(kind, path.stem, path, data) if sound else read_card(path, kind)
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


@functools.cache
def _plugins() -> tuple[_Cards, dict[str, str], tuple[str, ...]]:
    """Cards that installed packages bring, what is wrong with single ones by `kind/name`, and with whole packages."""
    found: _Cards = {}
    faults: dict[str, str] = {}
    broken = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            root = _package_folder(point.value)
        except Exception as error:
            reason = str(error) if isinstance(error, MerZooError) else f"{type(error).__name__}: {error}"
            broken.append(f"plugin '{point.name}' ({point.value}): {reason}")
            continue
        paths = [(kind, path) for kind in KINDS for path in sorted((root / kind).glob("*.yaml"))]
        if not paths:
            broken.append(f"plugin '{point.name}': no cards in {root}. They belong into {root}/KIND/NAME.yaml.")
        for kind, path in paths:
            name = f"{point.name}/{path.stem}"
            if (kind, name) in found:
                other = found[kind, name].origin
                broken.append(f"plugin '{point.name}': {kind}/{name} comes from {other} and from {path}. Rename one.")
                continue
            try:
                found[kind, name] = read_card(path, kind, prefix=f"{point.name}/")
            except Exception:
                faults[f"{kind}/{name}"] = _why(read_card, path, kind)
    return found, faults, tuple(broken)


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
    return sorted(chosen, key=lambda card: (KINDS.index(card.kind), card.name))


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
    lead = _lead(place)
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
    if ":" in name:
        return _by_path(kind, name, lead)
    raise MerZooError(f"{lead}no {kind.replace('_', ' ')} named '{name}'.{_hint(kind, name, known)}")


def _by_path(kind: str, name: str, lead: str) -> Card:
    module, _, cls = name.rpartition(":")
    if not module or not cls:
        raise MerZooError(f"{lead}{kind} '{name}': want 'module:Class' or './file.py:Class'.")
    beside = Path(module).with_suffix(".yaml")
    if module.endswith(".py") and beside.is_file():
        card = read_card(beside, kind)
        if Path(card.target.rpartition(":")[0]).resolve() == Path(module).resolve() and card.target.endswith(f":{cls}"):
            return replace(card, name=name, target=name)
    return Card(kind=kind, name=name, target=name, summary=f"{name}, by its path")


def _hint(kind: str, name: str, known: Iterable[str]) -> str:
    """Return where else the name might be: close by, or among the other kinds."""
    command = f" See `mer-zoo list {kind}`."
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
    lead = _lead(place)
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
    cls = getattr(module, class_name, None)
    if cls is None:
        raise MerZooError(f"{lead}{card.id}: '{module_name}' has no '{class_name}'.{nearest(class_name, vars(module))}")
    if not inspect.isclass(cls) and not (card.kind == "dataset" and callable(cls)):
        raise MerZooError(f"{lead}{card.id}: '{card.target}' is not a class. Name the class itself.")
    return cls


def _module_from_file(path_name: str) -> Any:
    path = Path(path_name).resolve()
    if not path.is_file():
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
    if faults := _card_faults(kind, name, data):
        raise MerZooError("\n".join(f"{kind} '{name}': {text}" for _, text in faults))
    settings(kind, cls)  # an untyped setting is refused here, not in the middle of a run
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    made = Card(kind=kind, name=name, **values)
    _registered[kind, name] = (made, cls)
    return made


def is_name(name: str) -> bool:
    """Whether a part may be called so.

    Example:
        >>> is_name("my_fusion"), is_name("MyFusion")
        (True, False)
    """
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and not keyword.iskeyword(name)


def snake_case(name: str) -> str:
    """Return the registered name of a class.

    Example:
        >>> snake_case("MyFusion"), snake_case("BiLSTM2")
        ('my_fusion', 'bi_lstm2')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def code(card: Card) -> str | None:
    """Return what stands for a part's code in a run's identity: None for a built-in part in its first version.

    For parts of others it is a digest of their source, so that an edited part is trained anew, never skipped.
    """
    if (card.kind, card.name) in _built_in()[0]:
        return f"version {card.version}" if card.version > 1 else None
    cls = load(card)
    try:  # in a notebook or a script the module holds everything else as well
        source = inspect.getsource(cls if cls.__module__ == "__main__" else sys.modules[cls.__module__])
    except (OSError, TypeError, KeyError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def session() -> dict[tuple[str, str], tuple[Card, type]]:
    """Return what `register` added in this Python session, to hand it to another process."""
    return dict(_registered)


def resume(session: Mapping[tuple[str, str], tuple[Card, type]]) -> None:
    """Take over what was registered in another process."""
    _registered.update(session)


def facts(kind: str, cls: type) -> tuple[str, ...]:
    """Return the facts that a part's `__init__` asks for: its positional arguments."""
    names = []
    for parameter in _parameters(cls):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.name not in FACTS[kind]:
                allowed = ", ".join(FACTS[kind]) or "none"
                raise MerZooError(
                    f"{cls.__module__}:{cls.__qualname__}: positional argument '{parameter.name}' is not a fact that "
                    f"{a(kind)} can be given (facts: {allowed}). If it is a setting, put it after `*`."
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
    init = cls.__init__ if inspect.isclass(cls) else cls
    named = {p.name: p.annotation for p in _parameters(cls) if p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty}
    try:  # of settings alone: a fact's type may be known to type checkers only
        hints = typing.get_type_hints(types.SimpleNamespace(__annotations__=named), getattr(init, "__globals__", {}))
    except Exception as error:
        raise MerZooError(f"{cls.__module__}:{cls.__qualname__}: a type annotation cannot be read: {error}") from None
    found = {}
    for parameter in _parameters(cls):
        if parameter.kind is parameter.VAR_KEYWORD or parameter.kind is parameter.VAR_POSITIONAL:
            raise MerZooError(
                f"{cls.__module__}:{cls.__qualname__}: `*{parameter.name}` hides settings. Name each one."
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name == "name" or parameter.name.startswith("_"):
                raise MerZooError(
                    f"{cls.__module__}:{cls.__qualname__}: a setting cannot be called '{parameter.name}' (in recipes, "
                    "`name` is the part's own). Rename it."
                )
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
    if cls.__init__ is object.__init__:
        return []
    named = list(inspect.signature(cls.__init__).parameters.values())[1:]
    if (cls.__init__.__module__ or "").startswith("torch."):  # nn.Module's own hides everything
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
    config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a setting may have the name of a method of pydantic's
            return pydantic.create_model(f"{cls.__name__}Settings", __config__=config, **fields)  # type: ignore[call-overload]
    except (pydantic.PydanticUserError, TypeError, NameError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise MerZooError(
            f"{cls.__module__}:{cls.__qualname__}: a setting's type is not plain data (numbers, text, lists, mappings "
            f"of these, Literal): {reason}."
        ) from None


def fill(
    card: Card, given: Mapping[str, Any], place: str = "", locate: Callable[..., str] | None = None
) -> dict[str, Any]:
    """Check settings against a part's schema and return them all as plain data, defaults written in.

    Args:
        card: of the part.
        given: settings by name.
        place: put in front of an error.
        locate: gives the place of one setting (and of what is inside it), where it is known better than `place`.

    Raises:
        MerZooError: an unknown or ill-typed setting, with the nearest match.
    """
    return validate(card.kind, load(card, place), given, card.id, place, locate).model_dump(mode="json")


def validate(
    kind: str,
    cls: type,
    given: Mapping[str, Any],
    owner: str,
    place: str = "",
    locate: Callable[..., str] | None = None,
) -> Any:
    """Return the checked settings of a class as an instance of its schema; `owner` names the part in errors."""
    import pydantic

    model = schema(kind, cls)
    locate = locate or (lambda *path: place)
    try:
        text = json.dumps(dict(given))  # as if written in a recipe: a list may stand for a tuple
    except TypeError as error:
        raise MerZooError(f"{_lead(place)}settings of {owner} must be plain data: {error}.") from None
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise MerZooError("\n".join(_faults(error, model.model_fields, locate, owner))) from None


def _lead(place: str) -> str:
    return f"{place}: " if place else ""


def _faults(error: Any, known: Iterable[str], locate: Callable[..., str], owner: str) -> list[str]:
    lines = []
    for fault in error.errors():
        path = ".".join(str(p) for p in fault["loc"])
        place = _lead(locate(*fault["loc"]))
        if fault["type"] == "extra_forbidden":
            lines.append(f"{place}{owner} has no setting '{path}'.{nearest(path, known) or ' It has none.'}")
        elif fault["type"] == "missing":
            lines.append(f"{place}{owner} needs the setting '{path}'. Add it.")
        else:
            lines.append(f"{place}setting '{path}' of {owner}: {fault['msg']} (given: {fault['input']!r}).")
    return lines


def build(card: Card, given: Mapping[str, Any], known_facts: Mapping[str, Any], place: str = "") -> Any:
    """Make a part: facts by position, settings by name.

    Raises:
        MerZooError: the settings do not fit, or the part refuses them (its `ValueError` is shown as the reason).
    """
    return construct(card.kind, load(card, place), given, known_facts, card.id, place)


def construct(
    kind: str, cls: type, given: Mapping[str, Any], known_facts: Mapping[str, Any], owner: str, place: str = ""
) -> Any:
    """Make a part from its class; as `build`, for a class that has no card."""
    filled = dict(validate(kind, cls, given, owner, place))
    lead = _lead(place)
    missing = [name for name in facts(kind, cls) if name not in known_facts]
    if missing:
        raise MerZooError(f"{lead}{owner} needs to know {', '.join(missing)}, which is not known here.")
    try:
        return cls(*(known_facts[name] for name in facts(kind, cls)), **filled)
    except MerZooError as error:
        raise MerZooError(f"{lead}{owner}: {error}") from None
    except (ValueError, TypeError) as error:
        raise MerZooError(f"{lead}{owner} cannot be made of these settings: {error}") from error
