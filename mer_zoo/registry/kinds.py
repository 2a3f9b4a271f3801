"""The kinds of parts: what each may ask to know, and what it may promise."""

from __future__ import annotations

from collections.abc import Iterable

from mer_zoo.errors import nearest

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
    "learner": (),
}
"""For each kind of part, the facts its `__init__` may ask for as positional arguments, by name."""


KINDS = tuple(FACTS)


CONTRACTS: dict[str, str] = {
    "dataset": "makes a `Dataset`, or gives one when called; a setting `seed` decides what is random",
    "extractor": "utterances of a dialogue → float32 `[utterances, out_width]`; has `modality` and `out_width`",
    "encoder": "x float `[N, width]`, layout → float `[N, out_width]`",
    "graph": "`edges(conversation)` → edge type -> (sources, targets); has `relations`, `edge_types` and, if any, `nodes` of its own",
    "edge_weight": "x float `[nodes, width]`, edges, layout → masked edge tensor `[*edges]`",
    "layer": "x float `[nodes, width]`, edges, weights `[*edges]` or None → float `[nodes, out_width]`",
    "fusion": "states: modality -> float `[N, width]`, layout → float `[N, out_width]`",
    "balancing": "hooks on the training loop, see `mer_zoo.parts.balancing.base`; no effect in evaluation",
    "head": "x float `[N, width]`, layout → logits float `[N, classes]`",
    "loss": "output, labels int64 `[N]` (-1: none) → scalar",
    "kernel": "message passing on the lowered edges of a batch, see `mer_zoo.kernel.base`",
    "learner": "`fit(train, validation, label_names, seed=)`, `predict_proba(conversation)` → float64 `[utt, classes]`",
}
"""What every kind of part takes and gives."""


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
"""The kinds of parts for which a promise can be checked."""


def promise_faults(kind: str, promises: Iterable[str]) -> list[str]:
    """Return one sentence for every promise that does not exist, or cannot be checked of this kind of part."""
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
