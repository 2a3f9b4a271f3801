"""Which convolutions of PyG and DGL can be layers: `python -m docs.generator.convolutions` writes the list anew."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from docs.generator.pages import ROOT, table
from mer_zoo import registry
from mer_zoo.commands.describe import written
from mer_zoo.errors import MerZooError
from mer_zoo.parts.layer.dgl import DGL
from mer_zoo.parts.layer.pyg import PyG
from mer_zoo.parts.ops.convolution import Convolution

PAGE = ROOT / "docs/reference/convolutions.md"
LIBRARIES: dict[str, tuple[type[Convolution], str]] = {"pyg": (PyG, "torch-geometric"), "dgl": (DGL, "dgl")}
RELATIONS = ("past", "present", "future")
WIDTH = 16

EXAMPLES: Mapping[str, Any] = {
    **{"K": 2, "k": 2, "alpha": 0.2, "alp": 0.5, "lam": 1.0, "delta": 1.0, "layer": 1},
    **{"num_heads": 2, "num_layers": 2, "n_steps": 2, "prop_step": 2, "filter_size": 2, "kernel_size": 2},
    **{"n_kernels": 2, "hidden_channels": 8, "hidden_feats": 8, "hidden_d": 8},
    **{"edge_type_emb_dim": 4, "edge_attr_emb_dim": 4, "first_aggr": True},
    **{"aggregator_type": "mean", "aggregators": ["mean", "max"], "scalers": ["identity"]},
}
"""A value for every setting that some convolution must be given."""


REASONS = {
    "WLConv": "it takes labels, not states",
    "DNAConv": "it takes the states of all earlier layers",
    "MeshCNNConv": "its edges are those of a mesh",
    "DGNConv": "it wants eigenvectors of the graph",
    "GINEConv": "edge features must be as wide as the states",
    "GroupRevRes": "its setting gnn_module is not plain data",
}
"""Why some fail that say it badly themselves."""


@dataclass(frozen=True)
class Entry:
    """One convolution.

    Attributes:
        name: of its class.
        settings: those that must be given, with example values.
        layer: made of them, or None.
        reason: why it cannot be a layer.
        looped: whether it can be captured with `add_self_loops: false`.
    """

    name: str
    settings: dict[str, Any]
    layer: Convolution | None = None
    reason: str = ""
    looped: bool = False


def survey(library: str) -> list[Entry]:
    """Try every convolution of a library."""
    cls, _ = LIBRARIES[library]
    return [_entry(library, name) for name in sorted(cls.convolutions())]


def _entry(library: str, name: str) -> Entry:
    cls, _ = LIBRARIES[library]
    card = registry.find("layer", library)
    needed: dict[str, Any] = {}
    try:
        every = cls.handed_on({"conv": name})
        needed = {s: EXAMPLES[s] for s, setting in every.items() if setting.required and s in EXAMPLES}
        known = {"width": WIDTH, "relations": RELATIONS}
        torch.manual_seed(0)
        layer = registry.build(card, {"conv": name, **needed}, known)
    except MerZooError as error:
        text = str(error).removeprefix(f"layer/{library}").lstrip(": ").splitlines()[0].partition(" (/")[0]
        for lead in ("cannot be made of these settings: ", f"{cls.library}'s {name} cannot be a layer: "):
            text = text.removeprefix(lead)
        return Entry(name, needed, reason=REASONS.get(name, text.rstrip(".")))
    looped = False
    if "add_self_loops" in every and not layer.capturable:
        with contextlib.suppress(MerZooError):  # some cannot do without
            looped = registry.build(card, {"conv": name, **needed, "add_self_loops": False}, known).capturable
    return Entry(name, needed, layer, looped=looped)


def section(library: str, entries: Collection[Entry]) -> str:
    """Return the list of a library as Markdown."""
    cls, package = LIBRARIES[library]
    good = [entry for entry in entries if entry.layer]
    rows = [(f"`{e.name}`", _given(e.settings), *_qualities(e)) for e in good]
    bad = [(f"`{e.name}`", e.reason) for e in entries if not e.layer]
    return "\n\n".join(
        [
            f"### `name: {library}`: {len(good)} of {cls.library} {importlib.metadata.version(package)}",
            table(["convolution", "must be given, such as", "weights", "relations", "stacked", "captured"], rows),
            f"These {len(bad)} cannot be layers:",
            table(["convolution", "why"], bad),
        ]
    )


def _given(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}: {written(value)}`" for name, value in settings.items())


def _qualities(entry: Entry) -> tuple[str, ...]:
    assert entry.layer is not None
    takes = set(entry.layer.takes.values())
    shown = [entry.layer.takes_weights, bool(takes & {"type", "attributes"}), entry.layer.stackable]
    captured = "yes" if entry.layer.capturable else "without `add_self_loops`" if entry.looped else ""
    return (*("yes" if quality else "" for quality in shown), captured)


def page(text: str) -> str:
    """Return the page with a new list."""
    before, _, rest = text.partition("<!-- list -->")
    _, _, after = rest.partition("<!-- /list -->")
    made = "\n\n".join(section(library, survey(library)) for library in LIBRARIES)
    return f"{before}<!-- list -->\n{made}\n<!-- /list -->{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
