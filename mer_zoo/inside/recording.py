"""A listener that knows which stage of a model tells it of an attention, and between which nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mer_zoo.batch import launch_cost
from mer_zoo.batch.looking import listening
from mer_zoo.corpus import ConversationBatch
from mer_zoo.errors import MerZooError
from mer_zoo.inside.maps import AttentionMap, Node
from mer_zoo.model.model import Model
from mer_zoo.model.stages import EncoderStage, Group

WHOLE = "dialogue"
"""What stands for the relation of attention that sees a whole dialogue, without a graph."""


class _Here(NamedTuple):
    """A module that runs: its stage, the key and group of its part, its name within, and itself."""

    stage: str
    key: str
    group: Group
    place: str
    module: nn.Module


@dataclass
class Recorder:
    """Is told of attention while a model runs on one dialogue.

    Attributes:
        model: it runs as it is, part by part.
        told: what it heard, in order.
    """

    model: Model
    told: list[AttentionMap] = field(default_factory=list)
    _running: list[_Here] = field(default_factory=list, init=False)
    _calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    _length: int = 0
    _walk: AttentionMap | None = None
    _next: int = 0

    def run(self, batch: ConversationBatch) -> None:
        """Run the model on a batch of one dialogue and keep what it tells."""
        self._length = len(batch)
        with ExitStack() as stack:
            for here in self._modules():
                for hook in self._hooks(here):
                    stack.callback(hook.remove)
            stack.enter_context(listening(self._hear))
            stack.enter_context(launch_cost.assumed(False))  # else twins are one program, which tells of itself once
            stack.enter_context(torch.no_grad())
            self.model(batch)

    def _modules(self) -> list[_Here]:
        """Return every module of every part."""
        return [
            _Here(name, key, group, place, module)
            for name, stage in self.model.named_stages()
            for key, group in stage.groups.items()
            for place, module in stage.parts[key].named_modules()
        ]

    def _hooks(self, here: _Here) -> Sequence[Any]:
        def enter(*_: object) -> None:
            self._calls[here.stage, here.key] += here.place == ""
            self._running.append(here)

        def leave(*_: object) -> None:
            self._running.pop()

        return here.module.register_forward_pre_hook(enter), here.module.register_forward_hook(leave, always_call=True)

    def _hear(self, weights: Tensor, edges: Any, name: str, target: int | None, source: int) -> None:
        """Take note."""
        if not self._running:  # not a stage's doing
            return
        if target is not None:
            self._hear_row(weights, edges, target, source)
            return
        here = self._running[-1]
        nodes = self._nodes(here)
        relations: tuple[str, ...] = (WHOLE,)
        if edges is None:
            count, rest = divmod(weights.shape[-1], self._length)
            types = nodes[1:] if len(nodes) == count + 1 else nodes[:count]
            if rest or len(types) != count or weights.shape[-2] != self._length or weights.ndim not in (3, 4):
                raise MerZooError(
                    f"model.{here.stage}: tells of attention of shape {tuple(weights.shape)} in a dialogue of "
                    f"{self._length} utterances. Want [dialogues, (heads,) targets, sources]."
                )
            maps = _array(weights)[0].reshape(1, -1, 1, *weights.shape[-2:])
            sides = self._every(nodes[:1]), self._every(types)
        else:
            relations = tuple(edges.names[number] for number in edges.selected)
            maps = _dense(weights, edges, outgoing=name == "outgoing")
            sides = (self._along(edges, here.group),) * 2
        if name == "mirrored":
            maps = maps[..., ::-1, ::-1]
        if name == "difference":
            names: Sequence[str] = [name]
        else:
            names = ["attention"] if maps.shape[2] == 1 else [f"map {i + 1}" for i in range(maps.shape[2])]
        self.told += [self._map(name, maps[:, :, i], relations, *sides) for i, name in enumerate(names)]

    def _hear_row(self, weights: Tensor, edges: Any, target: int, source: int) -> None:
        """Take note of what a part tells while it walks along the dialogue."""
        here = self._running[-1]
        rows = _array(weights)  # [relations, 1, targets, sources], or [1, targets, sources]
        rows = rows[None] if edges is None else rows
        relations = (WHOLE,) if edges is None else tuple(edges.names[number] for number in edges.selected)
        walk = self._walk
        if walk is None or (walk.stage, walk.part, walk.place) != self._place(here) or self._next > target:
            nodes = self._every(self._nodes(here)[:1]) if edges is None else self._along(edges, here.group)
            empty = np.zeros((len(relations), 1, len(nodes), len(nodes)))
            walk = self._map("attention", empty, relations, nodes, nodes)
            self.told.append(walk)
        at, seen = (slice(start, start + size) for start, size in zip((target, source), rows.shape[-2:], strict=True))
        walk.weights[..., at, seen] = rows
        self._walk, self._next = walk, target + rows.shape[-2]

    def _map(
        self,
        name: str,
        weights: np.ndarray,
        relations: tuple[str, ...],
        targets: tuple[Node, ...],
        sources: tuple[Node, ...],
    ) -> AttentionMap:
        return AttentionMap(*self._place(self._running[-1]), name, weights, relations, targets, sources)

    def _place(self, here: _Here) -> tuple[str, str, str]:
        nodes = self._nodes(here)
        return here.stage, "+".join(nodes), here.place

    def _nodes(self, here: _Here) -> tuple[str, ...]:
        """Node types that an attention over whole dialogues is between: the target's, then the sources'."""
        for running in reversed(self._running):
            if between := getattr(running.module, "between", ()):
                return between
        if isinstance(self.model.stages[here.stage], EncoderStage):  # a shared part is called for one after the other
            return (here.group[(self._calls[here.stage, here.key] - 1) % len(here.group)],)
        return here.group

    def _every(self, types: Sequence[str]) -> tuple[Node, ...]:
        return tuple(Node(utterance, type) for type in types for utterance in range(self._length))

    def _along(self, edges: Any, types: Sequence[str]) -> tuple[Node, ...]:
        """Nodes as a kernel has them: utterances, type by type within each, then those of the graph builder's own."""
        count = edges.nodes_per_utterance
        found = [Node(utterance, type) for utterance in range(self._length) for type in types[:count]]
        own = zip(types[count:], edges.own, strict=True)
        return (*found, *(Node(number, type, own=True) for type, places in own for number in range(places)))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _dense(weights: Tensor, edges: Any, *, outgoing: bool) -> np.ndarray:
    """Lay an edge tensor out as `[relations, heads, maps, targets, sources]`, in whatever layout its kernel has it."""
    number = torch.arange(edges.nodes, device=weights.device, dtype=torch.float64)
    ends = [_array(edges.edge_values(end(number))).astype(int) for end in (edges.target, edges.source)]
    relation = _array(edges.edge_values(edges.one_hot)).argmax(0)
    values = _array(edges.edge_values(weights))
    heads = values.shape[0] if values.ndim > 1 else 1
    values = values.reshape(heads, -1, values.shape[-1])  # [heads, maps, edges]
    dense = np.zeros((len(edges.selected), edges.nodes, edges.nodes, *values.shape[:2]))
    np.add.at(dense, (relation, *(ends[::-1] if outgoing else ends)), np.moveaxis(values, -1, 0))
    return np.moveaxis(dense, (1, 2), (-2, -1))
