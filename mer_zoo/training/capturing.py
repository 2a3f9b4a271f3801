"""Steps in a few fixed shapes, recorded once as a CUDA graph and replayed: no launch, no Python, no sync per kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mer_zoo.batch.index import Shape
from mer_zoo.corpus import Corpus

Pair = tuple[Tensor, Tensor]
T = TypeVar("T")
BUCKETS = 2
"""Fixed shapes per run: each costs a recording, each more wastes less padding."""


def common_shapes(corpus: Corpus, plan: Any, buckets: int = BUCKETS) -> list[Shape]:
    """Return few shapes that hold all planned batches, the smallest first.

    The batches of all seeds, epochs and steps are ranked by utterances and cut into equal shares; each share's largest
    batch, in every respect, is a shape. Larger shapes hold what smaller ones hold.
    """
    wanted = [
        [corpus.shape(seed[epoch][step]) for seed in plan]
        for epoch in range(len(plan[0]))
        for step in range(len(plan[0][0]))
    ]
    ranked = sorted((union(shapes) for shapes in wanted), key=lambda shape: shape.utterances)
    found: list[Shape] = []
    for share in np.array_split(np.arange(len(ranked)), min(buckets, len(ranked))):
        found.append(union([*found[-1:], *(ranked[i] for i in share)]))
    return found


def union(shapes: Sequence[Shape]) -> Shape:
    """Return the smallest shape that holds all."""
    found = shapes[0]
    for shape in shapes[1:]:
        found = found | shape
    return found


class Replayed(Generic[T]):
    """A computation of tensors that stay where they are; on a GPU it is recorded when it is wanted a second time.

    Args:
        compute: returns tensors.
        device: where.
    """

    def __init__(self, compute: Callable[[], T], device: str) -> None:
        self.compute, self.device = compute, device
        self._calls = 0

    def __call__(self) -> T:
        """Return the results for what the tensors hold now."""
        if self._calls == 1 and self.device.startswith("cuda"):
            with torch.cuda.device(self.device):
                self.compute, _ = _recorded(self.compute)
        self._calls += 1
        return self.compute()


def _recorded(compute: Callable[[], Any], pool: Any = None) -> tuple[Callable[[], Any], Any]:
    """Record a warmed-up computation; returns what replays it, and the memory that it lives in."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        results = compute()

    def replay() -> Any:
        graph.replay()
        return results

    return replay, pool or graph.pool()


class Captured:
    """A step that reads its batch from fixed buffers; on a GPU it is recorded once per shape and phase.

    The first step of a shape and phase is not recorded: it makes what the optimiser remembers from then on. Recording
    runs the second a few times to warm up; weights, moments and the random generator are then put back, so that
    training is what it would be without.

    Args:
        compute: the step, from index tensors to losses and balancing rates.
        shapes: what `common_shapes` returns.
        state: gives all tensors that a step changes.
        device: where.
    """

    def __init__(
        self,
        compute: Callable[[dict[str, Any]], Pair],
        shapes: Sequence[Shape],
        state: Callable[[], list[Tensor]],
        device: str,
    ) -> None:
        self.compute, self.shapes, self.state, self.device = compute, list(shapes), state, device
        self._begun: set[tuple[int, bool]] = set()
        self._recorded: dict[tuple[int, bool], tuple[dict[str, Any], Callable[[], Pair]]] = {}
        self._pool: Any = None

    def fitting(self, need: Shape) -> Shape | None:
        """Return the smallest shape that holds a batch."""
        return next((shape for shape in self.shapes if shape | need == shape), None)

    def __call__(self, index: dict[str, Any], shape: Shape, phase: bool) -> Pair:
        """Run the step on a batch of exactly this shape; returns losses and rates.

        Args:
            index: the batch.
            shape: what it was padded to.
            phase: what of Python's branches has changed since another recording: balancing has begun.
        """
        key = (self.shapes.index(shape), phase)
        if key not in self._begun:
            self._begun.add(key)
            return self.compute(index)
        if key not in self._recorded:
            self._recorded[key] = self._record(index)
        buffers, run = self._recorded[key]
        pytree.tree_map(lambda buffer, new: buffer.copy_(new), buffers, index)
        losses, rates = run()
        return losses.clone(), rates.clone()

    def _record(self, index: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], Pair]]:
        buffers = pytree.tree_map(lambda x: x.clone(), index)
        if not self.device.startswith("cuda"):
            return buffers, lambda: self.compute(buffers)
        with torch.cuda.device(self.device):
            return buffers, self._record_graph(buffers)

    def _record_graph(self, buffers: dict[str, Any]) -> Callable[[], Pair]:
        with self._as_it_was():
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):
                    self.compute(buffers)
            torch.cuda.current_stream().wait_stream(aside)
        replay, self._pool = _recorded(lambda: self.compute(buffers), self._pool)
        return replay

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        """Put back in place whatever steps change."""
        before = [(x, x.detach().clone()) for x in self.state()]
        generator = torch.get_rng_state() if self.device == "cpu" else torch.cuda.get_rng_state(self.device)
        yield
        with torch.no_grad():
            for x, was in before:
                x.copy_(was)
        if self.device == "cpu":
            torch.set_rng_state(generator)
        else:
            torch.cuda.set_rng_state(generator, self.device)
