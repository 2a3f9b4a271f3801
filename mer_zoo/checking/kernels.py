"""The contract of kernel backends: every operation equals its definition, edge by edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from mer_zoo.batch import launch_cost
from mer_zoo.batch.index import Shape
from mer_zoo.checking import examples
from mer_zoo.checking.capture import find_sync
from mer_zoo.checking.part import Checks, Part, Verdict, close, difference
from mer_zoo.kernel.base import Kernel

NAMES = ("seven", "lonely", "three", "eleven")
HEADS, WIDTH = 2, 3


def checks(part: Part) -> Checks:
    """Return the suite."""
    found: Checks = {"construction": lambda: construction(part)}
    found |= {name: partial(check, part) for name, check in CHECKS.items()}
    return found | {f"promise {p}": partial(PROMISES[p], part) for p in part.promises if p in PROMISES}


def construction(part: Part) -> Verdict:
    """A subclass of `Kernel` without abstract methods."""
    if not issubclass(part.cls, Kernel):
        return "a kernel must be a subclass of mer_zoo.kernel.base.Kernel."
    if missing := sorted(part.cls.__abstractmethods__):
        return f"methods are missing: {', '.join(missing)}."
    return None


class Definition:
    """The edges of a batch as a plain list, and every operation by its definition."""

    def __init__(self, world: examples.World, spec: examples.ViewSpec, names: tuple[str, ...]) -> None:
        slot = {node: i for i, node in enumerate(spec.node_types)}
        found, start = [], 0
        self.lengths = [len(world.pool[name]) * len(slot) for name in names]
        for name in names:
            dialogue = world.pool[name]
            for (a, relation, b), (sources, targets) in world.graph.edges(dialogue).items():
                if a in slot and b in slot and relation in spec.relations:
                    kind = spec.relations.index(relation)
                    for u, v in zip(sources.tolist(), targets.tolist(), strict=True):
                        found.append((start + v * len(slot) + slot[b], start + u * len(slot) + slot[a], kind))
            start += len(dialogue) * len(slot)
        found.sort()
        self.nodes = start
        self.target, self.source, self.relation = (torch.tensor(x) for x in zip(*found, strict=True))
        self.kinds = torch.arange(len(spec.relations)).unsqueeze(1)

    def softmax(self, scores: Tensor, node: Tensor) -> Tensor:
        """Softmax over the edges that share a node."""
        same = node.unsqueeze(0) == node.unsqueeze(1)
        weight = (scores - scores.amax(-1, keepdim=True)).exp()
        return weight / (weight.unsqueeze(-2) * same).sum(-1)

    def by_distance(self, edges: Tensor, reach: int) -> Tensor:
        """Every edge at its dialogue, target and distance."""
        laid = edges.new_zeros(*edges.shape[:-1], len(self.lengths), max(self.lengths), 2 * reach + 1)
        ends = torch.tensor(self.lengths).cumsum(0)
        dialogue = torch.searchsorted(ends, self.target, right=True)
        place = self.target - (ends - torch.tensor(self.lengths))[dialogue]
        laid[..., dialogue, place, self.source - self.target + reach] = edges
        return laid

    def sum(self, edges: Tensor) -> Tensor:
        """Sum over the edges that enter a node."""
        return edges @ (self.target.unsqueeze(1) == torch.arange(self.nodes)).to(edges.dtype)


def operations(part: Part) -> Verdict:
    """Forward and backward, on one node type and on several, on all relations and on some."""
    for world, names in ((examples.FIRST, NAMES), (examples.OTHER, ("long", "five", "lonely"))):
        for spec in world.views.values():
            edges = world.batch(*names, kernel=part.cls).views[spec]
            if fault := _wrong(edges, Definition(world, spec, names)):
                return f"{fault} ({', '.join(spec.node_types)}; {', '.join(spec.relations)})"
    return None


def _wrong(edges: Kernel, plain: Definition) -> str | None:
    """Return the first operation that differs from its definition."""
    if edges.nodes != plain.nodes:
        return f"{edges.nodes} nodes, but must be {plain.nodes}."
    for name, ours, wanted in _pairs(edges, plain):
        if not close(ours[0], wanted[0], 1e-5):
            return f"`{name}` differs from its definition by {difference(ours[0], wanted[0])}."
        for mine, right in zip(ours[1], wanted[1], strict=True):
            if not close(mine, right, 1e-5):
                return f"the gradient of `{name}` differs from its definition by {difference(mine, right)}."
    return None


def _pairs(edges: Kernel, plain: Definition) -> Iterator[tuple[str, tuple, tuple]]:
    """Yield (operation, our result with gradients, the right result with gradients)."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    node, states, other = (random(HEADS, plain.nodes), *(random(HEADS, plain.nodes, WIDTH) for _ in range(2)))
    table = random(HEADS, edges.relations)
    selected = list(edges.selected)
    columns = edges.edge_values
    s, t, kinds = plain.source, plain.target, (plain.relation == plain.kinds).float()

    def weights(x: Tensor) -> Tensor:
        return edges.mask(edges.source(x).sigmoid() * edges.target(x))

    def right_weights(x: Tensor) -> Tensor:
        return x[..., s].sigmoid() * x[..., t]

    def right_aggregate(x: Tensor, v: Tensor) -> Tensor:
        return plain.sum((right_weights(x).unsqueeze(-1) * v[:, s]).transpose(1, 2)).transpose(1, 2)

    def twice(costly: bool, x: Tensor, v: Tensor) -> Tensor:
        with launch_cost.assumed(costly):
            messages = edges.propagation(weights(x))
            return messages.leave(messages.send(messages.send(messages.enter(v))))

    cases: dict[str, tuple[Callable, Callable, tuple[Tensor, ...]]] = {
        "source": (lambda x: columns(edges.source(x)), lambda x: x[..., s], (node,)),
        "target": (lambda x: columns(edges.target(x)), lambda x: x[..., t], (node,)),
        "relation": (lambda r: columns(edges.relation(r)), lambda r: r[:, selected][:, plain.relation], (table,)),
        "dot": (lambda q, k: columns(edges.dot(q, k)), lambda q, k: (q[:, t] * k[:, s]).sum(-1), (states, other)),
        "mask": (lambda x: columns(weights(x)), right_weights, (node,)),
        "softmax": (
            lambda x: columns(edges.softmax(weights(x))),
            lambda x: plain.softmax(right_weights(x), t),
            (node,),
        ),
        "softmax_outgoing": (
            lambda x: columns(edges.softmax_outgoing(weights(x[0]))),
            lambda x: plain.softmax(right_weights(x[0]), s),
            (node,),
        ),
        "softmax of two leading dimensions": (
            lambda x: columns(edges.softmax(weights(x)[:, None] + edges.ones)),
            lambda x: plain.softmax(right_weights(x)[:, None], t),
            (node,),
        ),
        "by_distance": (
            lambda x: edges.by_distance(weights(x)),
            lambda x: plain.by_distance(right_weights(x), edges.reach),
            (node,),
        ),
        "sum": (lambda x: edges.sum(weights(x)), lambda x: plain.sum(right_weights(x)), (node,)),
        "aggregate": (
            lambda x, v: edges.aggregate(weights(x), v),
            right_aggregate,
            (node, states),
        ),
        **{
            f"propagation{' (launches are costly)' * costly}": (
                partial(twice, costly),
                lambda x, v: right_aggregate(x, right_aggregate(x, v)),
                (node, states),
            )
            for costly in (False, True)
        },
        "aggregate_by_relation": (
            lambda x, v: edges.aggregate_by_relation(weights(x[0]), v[0]),
            lambda x, v: plain.sum((kinds * right_weights(x[0])).unsqueeze(1) * v[0][s].t()).transpose(1, 2),
            (node, states),
        ),
        "one_hot": (lambda x: columns(edges.one_hot) * x, lambda x: kinds * x, (random(1),)),
        "ones": (lambda x: columns(edges.ones) * x, lambda x: torch.ones(len(s)) * x, (random(1),)),
    }
    for name, (ours, right, inputs) in cases.items():
        yield name, _with_gradients(ours, inputs), _with_gradients(right, inputs)


def _with_gradients(function: Callable, inputs: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    direction = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((result * direction).sum(), leaves, allow_unused=True, materialize_grads=True)
    return result, list(grads)


def padding(part: Part) -> Verdict:
    """Nodes of rows that belong to no dialogue get zeros, and have no place of their own."""
    names = ("seven", "three", "eleven")
    world = examples.FIRST
    whole, spec = world.corpus(part.cls), world.views["window"]
    count = sum(len(world.pool[name]) for name in names)
    plain = whole.batch(world.numbers(*names)).views[spec]
    index = whole.index([*world.numbers(*names), len(whole)], Shape(utterances=count + 5, longest=13))
    edges = whole.batch(index).views[spec]
    summed = edges.sum(edges.ones)
    if summed.shape != (count + 5,) or bool(summed[count:].any()):
        return "rows that belong to no dialogue have edges."
    if not close(summed[:count], plain.sum(plain.ones)):
        return "rows that belong to no dialogue change the edges of the others."
    laid, wanted = edges.by_distance(edges.one_hot), plain.by_distance(plain.one_hot)
    spare = (len(names) + 1, 13)
    if laid.shape[1:3] != spare or not close(laid[:, : len(names), : wanted.shape[2]], wanted):
        return "`by_distance` gives another result beside rows that belong to no dialogue."
    if laid.sum() != wanted.sum():
        return "`by_distance` lays out edges of rows that belong to no dialogue."
    return None


class _Tour(torch.nn.Module):
    """Every operation once."""

    def forward(self, edges: Kernel, x: Tensor, table: Tensor) -> Tensor:
        node = x.t()
        weights = edges.mask(edges.source(node) + edges.target(node) + edges.relation(table))
        attention = edges.softmax(weights) * edges.softmax_outgoing(weights[0]) * edges.dot(x[None], x[None])
        apart = edges.aggregate_by_relation(attention[0], x)
        return edges.aggregate(edges.mask(attention), x[None]).sum() + apart.sum() + edges.sum(weights).sum()


def capturable(part: Part) -> Verdict:
    """Nothing is read back to the host, neither where all relations are selected nor where some are."""
    world = examples.FIRST
    data = world.batch(*NAMES, kernel=part.cls)
    for view in ("window", "past"):
        edges = data.views[world.views[view]]
        table = torch.ones(WIDTH, edges.relations)
        if fault := find_sync(_Tour(), (edges, data.features["text"][:, :WIDTH], table)):
            return fault
    return None


CHECKS: dict[str, Callable[[Part], Verdict]] = {"operations": operations, "padding": padding}
PROMISES: dict[str, Callable[[Part], Verdict]] = {"capturable": capturable}
