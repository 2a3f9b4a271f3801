"""A corpus on the device and ragged batches of it, made by index operations alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mer_zoo.batch.index import BatchIndex, Layout, Shape
from mer_zoo.data.conversation import Conversation

if TYPE_CHECKING:
    from mer_zoo.graph.base import GraphBuilder
    from mer_zoo.graph.lowering import View, ViewSpec
    from mer_zoo.kernel.base import Kernel

    NamedView = tuple[Sequence[str], str | Sequence[str] | None]


@dataclass
class ConversationBatch:
    """Several dialogues end to end: one row per utterance, no padding.

    With N utterances. To fix the shape of a batch, rows may be added at its end that belong to no dialogue: unlabelled,
    without edges, seen by no one.

    Attributes:
        features: modality -> float32 `[N, width]`; zeros where the modality is absent.
        present: modality -> bool `[N]`.
        labels: int64 `[N]`; -1 where unlabelled.
        layout: who speaks where.
        views: edges that the stages of a model see, by view.
        targets: task -> int64 `[N]`, labels beside the emotion's; -1 where unlabelled.
        own: node type of the graph builder's own -> where its nodes lie, as if they were utterances.
    """

    features: dict[str, Tensor]
    present: dict[str, Tensor]
    labels: Tensor
    layout: Layout
    views: dict[ViewSpec, Kernel] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    own: dict[str, Layout] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.labels.shape[0]


class Corpus:
    """Dialogues uploaded once, their graphs built and lowered once; `batch` then only indexes.

    Args:
        conversations: the dialogues, of equal modalities.
        builder: graph builder, or None for models without a graph.
        views: which node types and relations the stages see; pairs of names, or `ViewSpec`s.
        kernels: kernel class for every view, or None to choose the cheapest for each.
        device: where the tensors live.

    Example:
        >>> dialogue = Conversation("d", ("A", "B"), [0, 1], {"text": np.zeros((2, 3))})
        >>> batch = Corpus([dialogue, dialogue]).batch([1, 0, 1])
        >>> len(batch), batch.layout.rows.shape, batch.features["text"].shape
        (6, torch.Size([3, 2]), torch.Size([6, 3]))
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        builder: GraphBuilder | None = None,
        views: Sequence[ViewSpec | NamedView] = (),
        *,
        kernels: type[Kernel] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.lengths = np.array([len(dialogue) for dialogue in conversations], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.ids = [dialogue.id for dialogue in conversations]
        first = conversations[0]
        features, present = {}, {}
        for modality, width in first.widths.items():
            rows = [dialogue.values(modality) for dialogue in conversations]
            features[modality] = np.concatenate([*rows, np.zeros((1, width), np.float32)])
            present[modality] = np.concatenate([*(dialogue.mask(modality) for dialogue in conversations), [False]])
        self._features = {m: self._upload(x) for m, x in features.items()}
        self._present = {m: self._upload(x) for m, x in present.items()}
        self._labels = self._upload(np.concatenate([*(t.labels for t in conversations), [-1]]))
        self._targets = {
            task: self._upload(np.concatenate([*(t.targets[task] for t in conversations), [-1]]))
            for task in first.targets
        }
        self._speaker = self._upload(np.concatenate([*(t.speaker_index for t in conversations), [0]]))
        self._position = self._upload(np.concatenate([*(np.arange(n) for n in self.lengths), [0]]))
        self._length = self._upload(np.append(self.lengths, 1))
        self._kernels: dict[str, tuple[type[Kernel], View, dict[str, Tensor]]] = {}
        self._names: dict[ViewSpec, str] = {}
        self._own: dict[str, tuple[int, Tensor]] = {}
        if builder is not None and views:
            self._lower(conversations, builder, views, kernels)

    def _upload(self, array: np.ndarray) -> Tensor:
        host = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":  # from pinned memory the copy waits for nothing
            host = host.pin_memory()
        return host.to(self.device, non_blocking=True)

    def _lower(
        self,
        conversations: Sequence[Conversation],
        builder: GraphBuilder,
        views: Sequence[ViewSpec | NamedView],
        kernels: type[Kernel] | None,
    ) -> None:
        from mer_zoo.graph.lowering import ViewSpec, lower, select
        from mer_zoo.kernel.choice import cheapest
        from mer_zoo.kernel.segment import Segment

        specs = [
            v if isinstance(v, ViewSpec) else ViewSpec(tuple(v[0]), select(v[1], builder.relations, "view"))
            for v in views
        ]
        graphs = [builder(dialogue) for dialogue in conversations]
        lowered = lower(graphs, specs, builder.relations)
        for node in builder.nodes:
            counts = np.array([*(graph.num_nodes(node) for graph in graphs), 0], dtype=np.int64)
            self._own[node] = (int(counts.max(initial=1)), self._upload(counts))
        names: dict[tuple[int, type[Kernel]], str] = {}
        for spec, view in lowered.items():
            kernel = kernels or (Segment if spec.listed else cheapest(view))
            key = (id(view), kernel)
            if key not in names:
                names[key] = str(len(names))
                tables = {name: value.to(self.device) for name, value in kernel.tables(view).items()}
                self._kernels[names[key]] = (kernel, view, tables)
            self._names[spec] = names[key]

    def __len__(self) -> int:
        return len(self.lengths)

    def shape(self, dialogues: Sequence[int] | np.ndarray) -> Shape:
        """Return the shape of a batch of these dialogues."""
        chosen = np.asarray(dialogues, dtype=np.int64)
        lengths = self.lengths[chosen]
        edges = {name: kernel.count(view, chosen) for name, (kernel, view, _) in self._kernels.items()}
        return Shape(len(chosen), int(lengths.sum()), int(lengths.max(initial=1)), edges)

    def index(self, dialogues: Sequence[int] | np.ndarray, shape: Shape | None = None) -> BatchIndex:
        """Plan a batch on the host: where every utterance, dialogue and edge of it lies.

        Args:
            dialogues: numbers of the dialogues, in order; `len(self)` is a place holder without utterances.
            shape: pad to at least this.
        """
        plan, going = self._plan(dialogues, shape)
        return BatchIndex(**self._uploaded(plan), going=going)

    def stacked_index(self, batches: Sequence[Sequence[int] | np.ndarray], shape: Shape) -> dict[str, Any]:
        """Plan several batches of one shape, and upload them as one: the fields of `BatchIndex`, `[batches, ...]`.

        Args:
            batches: as of `index`.
            shape: pad all to this.
        """
        plans = [self._plan(dialogues, shape)[0] for dialogues in batches]
        return self._uploaded(pytree.tree_map(lambda *arrays: np.stack(arrays), *plans))

    def _uploaded(self, plan: dict[str, Any]) -> dict[str, Any]:
        uploaded: dict[str, Any] = pytree.tree_map(self._upload, plan)
        return uploaded

    def _plan(
        self, dialogues: Sequence[int] | np.ndarray, shape: Shape | None
    ) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Return the fields of a `BatchIndex` as arrays, and `going`."""
        least = shape or Shape()
        chosen = np.asarray(dialogues, dtype=np.int64)
        chosen = np.append(chosen, np.full(max(least.dialogues - len(chosen), 0), len(self)))
        lengths = np.append(self.lengths, 0)[chosen]
        size, count = max(int(lengths.max(initial=1)), least.longest), max(int(lengths.sum()), least.utterances)
        starts, utterances, rows, cells = _laid(self.lengths, chosen, size, count)
        edges: dict[str, dict[str, np.ndarray]] = {}
        for name, (kernel, view, _) in self._kernels.items():
            more, begin, total = {}, starts, count
            if view.own.shape[1]:
                extra = int((view.lengths - view.utterances).max(initial=0))
                total = count + extra * len(chosen)
                begin, *laid = _laid(view.lengths, chosen, size + extra, total)
                more = dict(zip(("utterances", "rows", "cells"), laid, strict=True))
                more["there"], more["back"] = _joined(view, chosen, starts, begin, count, total)
            edges[name] = {**kernel.plan(view, chosen, begin, total, least.edges.get(name, 0)), **more}
        place = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
        going = tuple(np.bincount(place, minlength=1).tolist())
        laid_out = {"utterances": utterances, "dialogues": chosen, "rows": rows, "cells": cells, "edges": edges}
        return laid_out, going

    def batch(self, dialogues: Sequence[int] | np.ndarray | BatchIndex) -> ConversationBatch:
        """Gather a batch: index operations on tensors that are already on the device."""
        index = dialogues if isinstance(dialogues, BatchIndex) else self.index(dialogues)
        rows = index.utterances
        structure = Layout(
            self._speaker[rows],
            self._position[rows],
            self._length[index.dialogues],
            index.rows,
            index.cells,
            index.going,
        )
        bound = {
            name: kernel(view, tables, _of_nodes(index, index.edges[name]), index.edges[name])
            for name, (kernel, view, tables) in self._kernels.items()
        }
        return ConversationBatch(
            {m: x[rows] for m, x in self._features.items()},
            {m: x[rows] for m, x in self._present.items()},
            self._labels[rows],
            structure,
            {spec: bound[name] for spec, name in self._names.items()},
            {task: labels[rows] for task, labels in self._targets.items()},
            {node: _own_layout(most, counts[index.dialogues]) for node, (most, counts) in self._own.items()},
        )


def _laid(lengths: np.ndarray, chosen: np.ndarray, size: int, count: int) -> tuple[np.ndarray, ...]:
    """Lay dialogues end to end in `count` rows; returns where each starts, and rows, places and cells as `BatchIndex`.

    Args:
        lengths: of all dialogues of the corpus.
        chosen: their numbers; beyond the last for a place holder.
        size: places of a dialogue in the padded layout.
        count: rows.
    """
    each = np.append(lengths, 0)[chosen]
    begins, total = np.concatenate([[0], np.cumsum(lengths)]), int(each.sum())
    starts = np.cumsum(each) - each
    dialogue = np.repeat(np.arange(len(chosen)), each)
    place = np.arange(total) - starts[dialogue]
    rows = np.full((len(chosen), size), count)
    rows[dialogue, place] = np.arange(total)
    pad = count - total
    corpus_rows = np.append(begins[chosen][dialogue] + place, np.full(pad, begins[-1]))
    cells = np.append(dialogue * size + place, np.full(pad, len(chosen) * size))
    return starts, corpus_rows, rows, cells


def _joined(
    view: View, chosen: np.ndarray, starts: np.ndarray, begin: np.ndarray, count: int, total: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each node's state comes from, and the inverse: see `Kernel.join`.

    States come utterance by utterance, then type by type of the builder's own, with equal places for every dialogue.
    """
    each = view.nodes_per_utterance
    lengths, own = np.append(view.utterances, 0)[chosen], np.pad(view.own, ((0, 1), (0, 0)))[chosen]
    dialogue = np.repeat(np.arange(len(chosen)), lengths)
    shift = np.repeat((begin - starts) * each, lengths * each)
    states = [np.arange(len(dialogue) * each)]
    nodes = [states[0] + shift]
    most, place, first = view.own.max(0, initial=1), (begin + lengths) * each, count * each
    for kind, places in enumerate(most):
        whose = np.repeat(np.arange(len(chosen)), own[:, kind])
        number = np.arange(len(whose)) - np.repeat(np.cumsum(own[:, kind]) - own[:, kind], own[:, kind])
        states.append(first + whose * places + number)
        nodes.append(place[whose] + number)
        place, first = place + own[:, kind], first + len(chosen) * places
    there, back = np.full(total * each, first), np.full(first, total * each)
    there[np.concatenate(nodes)], back[np.concatenate(states)] = np.concatenate(states), np.concatenate(nodes)
    return there, back


def _of_nodes(index: BatchIndex, plan: dict[str, Tensor]) -> BatchIndex:
    """Return the index with the places that nodes of the builder's own take."""
    if "there" not in plan:
        return index
    return BatchIndex(plan["utterances"], index.dialogues, plan["rows"], plan["cells"], index.edges)


def _own_layout(most: int, counts: Tensor) -> Layout:
    """Lay nodes of a type out as utterances of a dialogue, `most` places for each."""
    place = torch.arange(most, device=counts.device)
    number = torch.arange(counts.shape[0] * most, device=counts.device).view(counts.shape[0], most)
    rows = torch.where(place < counts.unsqueeze(-1), number, number.numel())
    position = place.expand(counts.shape[0], most).flatten()
    return Layout(position, position, counts.clamp(min=1), rows, rows.flatten())
