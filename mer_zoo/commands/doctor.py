"""What is right and wrong with an installation, and the remedy."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mer_zoo import registry
from mer_zoo.commands import terminal
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.registry import resources

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "mer-zoo"


def arguments(command: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> int:
    """Tell what is right and wrong with the installation."""
    findings = diagnose()
    for finding in findings:
        terminal.say(finding)
    return int(any(not finding.fine for finding in findings))


@dataclass(frozen=True)
class Diagnosis:
    """One thing looked at.

    Attributes:
        what: the thing.
        state: `ok`; `note`, something that is missing but not needed; `fault`.
        message: what was found, and how to fix it.
    """

    what: str
    state: Literal["ok", "note", "fault"]
    message: str

    @property
    def fine(self) -> bool:
        """Whether nothing needs fixing."""
        return self.state != "fault"

    def __str__(self) -> str:
        first, *rest = self.message.splitlines() or [""]
        return "\n".join([f"{self.state:<6}{self.what}: {first}", *(f"      {line}" for line in rest)])


def diagnose() -> list[Diagnosis]:
    """Look at Python, the libraries, the GPU, the data folders, every card and every plugin.

    Returns:
        what was found, in this order; nothing raises.

    Example:
        >>> [d.what for d in diagnose()][:2]
        ['python', 'torch']
    """
    found: list[Diagnosis] = []
    for what, look in LOOKS.items():
        try:
            found += look(what)
        except Exception as error:  # the doctor must not fall ill
            found.append(Diagnosis(what, "fault", f"{type(error).__name__}: {error}"))
    return found


def _python(what: str) -> Iterator[Diagnosis]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        yield Diagnosis(what, "ok", version)
    else:
        yield Diagnosis(what, "fault", f"{version}, but dgl has wheels for 3.10 to 3.12. Use one of these.")


def _torch(what: str) -> Iterator[Diagnosis]:
    try:
        import torch
    except Exception as error:
        yield Diagnosis(what, "fault", f"does not import: {error}. Run `pip install torch`.")
        return
    yield Diagnosis(what, "ok", torch.__version__)
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        yield Diagnosis("cuda", "ok", f"{torch.version.cuda}, {torch.cuda.device_count()} × {', '.join(sorted(names))}")
    else:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Diagnosis("cuda", "note", f"no GPU is seen ({built}). Everything runs on CPU.")


def _dgl(what: str) -> Iterator[Diagnosis]:
    remedy = "Run `pip install 'dgl==1.1.3'` on Python 3.10 and 3.11, `pip install 'dgl==2.1.0' pandas` on 3.12."
    try:
        from mer_zoo.graph.dgl_import import dgl
    except Exception as error:
        yield Diagnosis(what, "fault", f"does not import: {type(error).__name__}: {error}. {remedy}")
        return
    graph = dgl.graph(([0, 1], [1, 2]))
    if graph.num_edges() != 2:
        yield Diagnosis(what, "fault", f"{dgl.__version__} imports but counts edges wrongly. {remedy}")
        return
    with_help = ", with stubs for what its wheel wants and graphs do not need" if "2.1" in dgl.__version__ else ""
    yield Diagnosis(what, "ok", f"{dgl.__version__}{with_help}")


def _extras(what: str) -> Iterator[Diagnosis]:
    """Look at the extras that the installed package says it has."""
    from packaging.requirements import Requirement

    try:
        extras = importlib.metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
        wanted = [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or ()]
    except importlib.metadata.PackageNotFoundError:
        yield Diagnosis(what, "note", f"{PACKAGE} is found but not installed. Run `pip install .` in its folder.")
        return
    for extra in extras:
        if missing := sorted(set(_missing(extra, wanted))):
            text = f"without {', '.join(missing)}. If you want it: `pip install '{PACKAGE}[{extra}]'`."
            yield Diagnosis(f"extra {extra}", "note", text)
        else:
            yield Diagnosis(f"extra {extra}", "ok", "installed")


def _missing(extra: str, wanted: Collection[Requirement]) -> Iterator[str]:
    """Yield what of an extra is not installed, or too old."""
    from packaging.utils import canonicalize_name

    for one in wanted:
        if one.marker is None or one.marker.evaluate({"extra": ""}) or not one.marker.evaluate({"extra": extra}):
            continue  # not of this extra
        if canonicalize_name(one.name) == PACKAGE:  # an extra made of extras
            for other in one.extras:
                yield from _missing(other, wanted)
            continue
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            yield one.name
        else:
            if not one.specifier.contains(version, prereleases=True):
                yield f"{one.name}{one.specifier} (there is {version})"


def _folders(what: str) -> Iterator[Diagnosis]:
    for name in ("registry", "baselines"):
        folder = resources.folder(name)
        if folder.is_dir():
            yield Diagnosis(name, "ok", str(folder))
        else:
            yield Diagnosis(name, "fault", f"{folder} is missing. Reinstall mer-zoo.")


def _cards(what: str) -> Iterator[Diagnosis]:
    faults = list(registry.card_faults())
    for card in registry.cards():
        try:
            cls = registry.load(card)
            registry.schema(card.kind, cls)
        except MerZooError as fault:
            faults.append(str(fault))
    yield from _faults_or(what, faults, f"{len(registry.cards())} parts, each with a class and readable settings")


def _papers(what: str) -> Iterator[Diagnosis]:
    from mer_zoo.model import recipe
    from mer_zoo.registry import references

    known = references.references()
    faults = references.faults()
    citing = [(card.origin, card.name, card.paper) for card in registry.cards()]
    for name in recipe.names():
        with contextlib.suppress(MerZooError):  # told of under `recipes`
            citing.append((str(recipe.find(name)), name, recipe.read(name).recipe.paper))
    for origin, name, paper in citing:
        if paper is not None and references.cited(paper, name) is None:
            hint = nearest(paper, {key.rpartition("/")[2] for key in known})
            faults.append(f"{origin}: paper '{paper}' is not in references.bib.{hint}")
    yield from _faults_or(what, faults, f"{len(known)} in references.bib")


def _recipes(what: str) -> Iterator[Diagnosis]:
    from mer_zoo.model import recipe

    return _readable(what, recipe.names(), recipe.read)


def _suites(what: str) -> Iterator[Diagnosis]:
    from mer_zoo.comparison import suite

    return _readable(what, suite.names(), suite.read)


def _readable(what: str, names: Collection[str], read: Callable[[str], object]) -> Iterator[Diagnosis]:
    faults = []
    for name in names:
        try:
            read(name)
        except MerZooError as fault:
            faults.append(str(fault))
    yield from _faults_or(what, faults, f"{len(names)} readable")


def _plugins(what: str) -> Iterator[Diagnosis]:
    points = importlib.metadata.entry_points(group=registry.ENTRY_POINT_GROUP)
    names = ", ".join(sorted({point.name for point in points})) or "none"
    yield from _faults_or(what, registry.plugin_faults(), names)


def _faults_or(what: str, faults: list[str] | tuple[str, ...], otherwise: str) -> Iterator[Diagnosis]:
    yield from (Diagnosis(what, "fault", fault) for fault in faults)
    if not faults:
        yield Diagnosis(what, "ok", otherwise)


LOOKS: dict[str, Callable[[str], Iterator[Diagnosis]]] = {
    "python": _python,
    "torch": _torch,
    "dgl": _dgl,
    "extras": _extras,
    "folders": _folders,
    "cards": _cards,
    "papers": _papers,
    "recipes": _recipes,
    "suites": _suites,
    "plugins": _plugins,
}
