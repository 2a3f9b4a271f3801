"""The kinds of parts: one record each, and what their cards may promise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mer_zoo.errors import nearest


@dataclass(frozen=True)
class Kind:
    """All that the library knows of a kind of part but how its parts are run.

    A new kind is an entry of `KINDS`, the check that the entry names, and a template in `registry/templates/`. A kind
    of stage also says how it runs, in `mer_zoo.model.stages`.

    Attributes:
        title: heading of its pages.
        contract: what each part takes and gives.
        checks: `module:function` that makes the contract suite of a part.
        facts: what a part's `__init__` may ask for as positional arguments, by name.
        promises: what a card may promise because it can be checked.
        place: where a recipe names such a part: in a `stage`, at its `top`, or nowhere.
        function: whether a function will do where others need a class.
    """

    title: str
    contract: str
    checks: str
    facts: tuple[str, ...] = ()
    promises: tuple[str, ...] = ()
    place: Literal["stage", "top", ""] = ""
    function: bool = False


_MODULES = "mer_zoo.checking.modules:checks"

KINDS: dict[str, Kind] = {
    "dataset": Kind(
        title="Datasets",
        contract="makes a `Dataset`, or gives one when called; a setting `seed` decides what is random",
        checks="mer_zoo.checking.sources:datasets",
        function=True,
    ),
    "importer": Kind(
        title="Importers",
        contract="a file's `Path` → `Dataset`; `example(folder)` writes such a file; `reads` says what it is, if known",
        checks="mer_zoo.checking.sources:importers",
    ),
    "extractor": Kind(
        title="Extractors",
        contract="utterances of a dialogue → float32 `[utterances, out_width]`; has `modality` and `out_width`",
        checks="mer_zoo.checking.sources:extractors",
    ),
    "encoder": Kind(
        title="Encoders",
        contract="x float `[N, width]`, layout → float `[N, out_width]`",
        checks=_MODULES,
        facts=("width", "speakers"),
        promises=(
            *("capturable", "causal", "speaker_relabelling_invariant"),
            *("unstackable", "utterance_permutation_equivariant"),
        ),
        place="stage",
    ),
    "graph": Kind(
        title="Graph builders",
        contract="`edges(conversation)` → edge type -> (sources, targets); has `relations`, `edge_types`, `nodes`",
        checks="mer_zoo.checking.graphs:checks",
        facts=("node_types", "speakers"),
        promises=("causal", "linear_size", "modality_subset_safe", "speaker_relabelling_invariant"),
        place="top",
    ),
    "edge_weight": Kind(
        title="Edge weights",
        contract="x float `[nodes, width]`, edges, layout → masked edge tensor `[*edges]`",
        checks=_MODULES,
        facts=("width", "relations"),
        promises=("capturable", "causal", "unstackable"),
        place="stage",
    ),
    "layer": Kind(
        title="Layers",
        contract="x float `[nodes, width]`, edges, weights `[*edges]` or None → float `[nodes, out_width]`",
        checks=_MODULES,
        facts=("width", "relations", "speakers"),
        promises=("capturable", "causal", "unstackable"),
        place="stage",
    ),
    "fusion": Kind(
        title="Fusions",
        contract="states: modality -> float `[N, width]`, layout → float `[N, out_width]`",
        checks=_MODULES,
        facts=("widths",),
        promises=(
            *("capturable", "causal", "modality_permutation_invariant", "modality_subset_safe"),
            *("speaker_relabelling_invariant", "unstackable", "utterance_permutation_equivariant"),
        ),
        place="stage",
    ),
    "balancing": Kind(
        title="Balancing",
        contract="hooks on the training loop, see `mer_zoo.parts.balancing.base`; no effect in evaluation",
        checks="mer_zoo.checking.strategies:checks",
        facts=("modalities", "classes"),
        place="top",
    ),
    "head": Kind(
        title="Heads",
        contract="x float `[N, width]`, layout → logits float `[N, classes]`",
        checks=_MODULES,
        facts=("width", "classes", "speakers"),
        promises=(
            *("capturable", "causal", "speaker_relabelling_invariant"),
            *("unstackable", "utterance_permutation_equivariant"),
        ),
        place="stage",
    ),
    "loss": Kind(
        title="Losses",
        contract="output, labels int64 `[N]` (-1: none), and by name `layout`, `targets` → scalar",
        checks="mer_zoo.checking.losses:checks",
        facts=("modalities", "class_counts"),
        promises=("capturable", "unstackable"),
        place="top",
    ),
    "kernel": Kind(
        title="Kernels",
        contract="message passing on the lowered edges of a batch, see `mer_zoo.kernel.base`",
        checks="mer_zoo.checking.kernels:checks",
        facts=("view", "tables", "index", "plan"),
        promises=("capturable",),
    ),
    "learner": Kind(
        title="Models without gradient descent",
        contract="`fit(train, validation, label_names, seed=)`, `predict_proba(conversation)` → float64 "
        "`[utt, classes]`",
        checks="mer_zoo.checking.learners:checks",
        place="top",
    ),
    "tracker": Kind(
        title="Trackers",
        contract="`log(run)`, called once after each finished or broken run, with a `mer_zoo.results.run.Run`",
        checks="mer_zoo.checking.trackers:checks",
        facts=("results",),
    ),
}
"""Every kind by name, in the order in which lists show them."""


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
"""What a card may promise, and `check_part` then checks."""


def promised_by(promise: str) -> tuple[str, ...]:
    """Return the kinds of parts for which a promise can be checked.

    Example:
        >>> promised_by("linear_size")
        ('graph',)
    """
    return tuple(name for name, kind in KINDS.items() if promise in kind.promises)


def promise_faults(kind: str, promises: Iterable[str]) -> list[str]:
    """Return one sentence for every promise that does not exist, or cannot be checked of this kind of part."""
    faults = []
    for promise in promises:
        if promise not in PROMISES:
            faults.append(f"no promise named '{promise}'.{nearest(promise, PROMISES)}")
        elif promise not in KINDS[kind].promises:
            faults.append(f"'{promise}' cannot be promised by {a(kind)}, only by: {', '.join(promised_by(promise))}.")
    return faults


def a(kind: str) -> str:
    """Return a kind with its article: `an encoder`, `an edge weight`."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind.replace('_', ' ')}"
