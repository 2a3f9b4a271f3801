"""The contract of kernel backends: every operation equals its definition, edge by edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from mer_zoo.batch import launch_cost
from mer_zoo.batch.index import Shape
from mer_zoo.checking import examples
from mer_zoo.checking.capture import watch_for_syncs
from mer_zoo.checking.part import Broken, Finding, Part, close, difference, run
from mer_zoo.kernel.base import Kernel

NAMES = ("seven", "lonely", "three", "eleven")
HEADS, WIDTH = 2, 3


def findings(part: Part) -> Iterator[Finding]:
    """Run the suite; stops at once when the class is no kernel."""
    first = run("construction", lambda: construction(part))
    yield first
    if not first.fine:
        return
    for name, check in CHECKS.items():
        yield run(name, lambda check=check: check(part))  # type: ignore[misc]
    for promise in part.promises:
        if promise in PROOFS:
            yield run(f"promise {promise}", lambda promise=promise: PROOFS[promise](part))  # type: ignore[misc]


def construction(part: Part) -> None:
    """A subclass of `Kernel` without abstract methods."""
    if not issubclass(part.cls, Kernel):
        raise Broken("a kernel must be a subclass of mer_zoo.kernel.base.Kernel.")
    if missing := sorted(part.cls.__abstractmethods__):
        raise Broken(f"methods are missing: {', '.join(missing)}.")


class Definition:
    """The edges of a batch as a plain list, and every operation by its definition."""

    def __init__(self, spec: examples.ViewSpec) -> None:
        slot = {node: i for i, node in enumerate(spec.node_types)}
        found, start = [], 0
        for name in NAMES:
            dialogue = examples.pool()[name]
            for (a, relation, b), (sources, targets) in examples.GRAPH.edges(dialogue).items():
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

    def sum(self, edges: Tensor) -> Tensor:
        """Sum over the edges that enter a node."""
        return edges @ (self.target.unsqueeze(1) == torch.arange(self.nodes)).to(edges.dtype)


def operations(part: Part) -> None:
    """Forward and backward, on one node type and on several, on all relations and on some."""
    for spec in (examples.WINDOW, examples.ACROSS, examples.PAST):
        edges: Kernel = examples.batch(*NAMES, kernel=part.cls).views[spec]
        plain = Definition(spec)
        if edges.nodes != plain.nodes:
            raise Broken(f"{edges.nodes} nodes, but must be {plain.nodes}.")
        for name, ours, wanted in _pairs(edges, plain):
            if not close(ours[0], wanted[0], 1e-5):
                raise Broken(f"`{name}` differs from its definition by {difference(ours[0], wanted[0])}.")
            for mine, right in zip(ours[1], wanted[1], strict=True):
                if not close(mine, right, 1e-5):
                    raise Broken(f"the gradient of `{name}` differs from its definition by {difference(mine, right)}.")


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


def padding(part: Part) -> None:
    """Nodes of rows that belong to no dialogue get zeros."""
    names = ("seven", "three", "eleven")
    whole = examples.corpus(part.cls)
    count = sum(len(examples.pool()[name]) for name in names)
    plain = whole.batch(examples.numbers(*names)).views[examples.WINDOW]
    index = whole.index([*examples.numbers(*names), len(whole)], Shape(utterances=count + 5, longest=13))
    edges = whole.batch(index).views[examples.WINDOW]
    summed = edges.sum(edges.ones)
    if summed.shape != (count + 5,) or bool(summed[count:].any()):
        raise Broken("rows that belong to no dialogue have edges.")
    if not close(summed[:count], plain.sum(plain.ones)):
        raise Broken("rows that belong to no dialogue change the edges of the others.")


class _Tour(torch.nn.Module):
    """Every operation once."""

    def forward(self, edges: Kernel, x: Tensor, table: Tensor) -> Tensor:
        node = x.t()
        weights = edges.mask(edges.source(node) + edges.target(node) + edges.relation(table))
        attention = edges.softmax(weights) * edges.softmax_outgoing(weights[0]) * edges.dot(x[None], x[None])
        apart = edges.aggregate_by_relation(attention[0], x)
        return edges.aggregate(edges.mask(attention), x[None]).sum() + apart.sum() + edges.sum(weights).sum()


def capturable(part: Part) -> None:
    """Nothing is read back to the host, neither where all relations are selected nor where some are."""
    data = examples.batch(*NAMES, kernel=part.cls)
    for spec in (examples.WINDOW, examples.PAST):
        edges = data.views[spec]
        table = torch.ones(WIDTH, edges.relations)
        watch_for_syncs(_Tour(), (edges, data.features["text"][:, :WIDTH], table))


CHECKS: dict[str, Callable[[Part], None]] = {"operations": operations, "padding": padding}
PROOFS: dict[str, Callable[[Part], None]] = {"capturable": capturable}
