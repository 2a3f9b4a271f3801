"""A convolution of another library as a layer: what it wants is filled in, and what it can do is found out."""

from __future__ import annotations

import abc
import contextlib
import copy
import functools
import inspect
import json
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mer_zoo.batch import fakes
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.kernel.base import Kernel
from mer_zoo.registry import Setting

Fill = Literal["width", "out", "relations", "one", "yes", "network"]
"""What an argument of a constructor is filled with."""

Give = Literal["x", "edges", "weight", "attributes", "type", "dialogue", "node_type"]
"""What an argument of a forward is given."""

NEVER = frozenset({"cached", "is_sorted"})
"""Settings that are right for one graph alone, not for batches of many."""

PLAIN = (bool, int, float, str)


class Found(NamedTuple):
    """What a trial of a convolution found.

    Attributes:
        capturable: whether a CUDA graph can hold it.
        stackable: whether `torch.func.vmap` can map it over weights, and over edges too.
    """

    capturable: bool
    stackable: bool


class Convolution(nn.Module, abc.ABC):
    """Base of the layers that run a convolution of another library.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: masked edge tensor `[*edges]`, or None.
    Outputs:
        float `[nodes, out_width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        conv: name of the convolution.
        out_width: width of the result, heads together; null: that of x.
        settings: of the convolution, by the names of its own signature.

    Raises:
        MerZooError: no such convolution; one that wants what a conversation's graph does not have; an `out_width` that
            it cannot give; weights that it does not take.
    """

    lists_edges = True
    """Whether the edges are wanted as a list, whatever layout would be cheaper."""

    library: ClassVar[str]
    fills: ClassVar[Mapping[str, Fill]]
    gives: ClassVar[Mapping[str, Give]]
    mappable: ClassVar[bool] = True
    """Whether its operations are torch's own."""

    def __init__(
        self, width: int, relations: tuple[str, ...], *, conv: str, out_width: int | None = None, **settings: Any
    ) -> None:
        super().__init__()
        self.conv, self.relations = conv, len(relations)
        self.takes = given(self, conv)
        self.inner, self.out_width = self._fitting(width, out_width, settings)
        key = json.dumps([self.library, conv, settings])
        if self._is_sketched():  # it will not run, and what it can do would be remembered of the real one
            found = Found(False, False)
        else:
            found = _trials.get(key) or _trials.setdefault(key, self._trial(width))
        self.capturable, self.stackable = found.capturable, found.stackable

    @classmethod
    @abc.abstractmethod
    def convolutions(cls) -> dict[str, type]:
        """Return the library's convolutions by name."""

    @abc.abstractmethod
    def structure(self, edge_index: Tensor, nodes: int) -> Any:
        """Return edges as the library has them."""

    @abc.abstractmethod
    def convolve(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Convolve a batch.

        Args:
            x: float `[nodes, width]`.
            edges: kernel.
            weights: one per entry of `edges.edge_index`, or None.
        """

    def network(self, width: int, out: int) -> nn.Module:
        """Return the network inside convolutions that want one."""
        before, after = NETWORKS[self.conv](width, out, self.relations)
        return nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Linear(after, after))

    @classmethod
    def handed_on(cls, given: Mapping[str, Any]) -> dict[str, Setting]:
        """Return the settings of the convolution that is asked for, by its own signature.

        Args:
            given: settings as written, `conv` among them.
        """
        default = inspect.signature(cls.__init__).parameters["conv"].default
        target = named(cls, str(given.get("conv", default)))
        return {s.name: s for s in _settings(cls, target)}

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Convolve once."""
        if weights is not None and not self.takes_weights:
            raise MerZooError(
                f"{self.library}'s {self.conv} takes no edge weights with these settings, so they would be lost. Take "
                "the `edge_weight` stage away, or a convolution that takes them."
            )
        return self.convolve(x, edges, None if weights is None else edges.edge_values(weights))

    def convolved(self, x: Tensor, structure: Any, kind: Tensor, weights: Tensor | None, dialogue: Tensor) -> Tensor:
        """Call the convolution with what its forward asks for."""
        known: dict[Give, Any] = {"x": x, "edges": structure, "type": kind, "weight": weights}
        known["dialogue"] = dialogue
        wanted = self.takes.values()
        if "node_type" in wanted:
            known["node_type"] = torch.zeros_like(dialogue)
        if "attributes" in wanted:
            numbers = torch.arange(self.relations, device=x.device)
            one_hot = (kind.unsqueeze(-1) == numbers).to(x.dtype)
            known["attributes"] = one_hot if weights is None else one_hot * weights.unsqueeze(-1)
        y = self.inner(**{name: known[give] for name, give in self.takes.items()})
        y = y[0] if isinstance(y, tuple) else y
        return y.flatten(1)

    def _fitting(self, width: int, out_width: int | None, settings: Mapping[str, Any]) -> tuple[nn.Module, int]:
        """Make the convolution so that its output, all heads together, has the width that is asked for."""
        wanted = out_width or width
        inner = self._made(width, wanted, settings)
        found = self._measured(inner, width)
        times, left = divmod(found, wanted)
        if found != wanted and not left and not wanted % times:
            inner = self._made(width, wanted // times, settings)
            found = self._measured(inner, width)
        if found != wanted and out_width is not None:
            raise MerZooError(f"out_width: {self.conv} gives {found} with these settings, not {wanted}. Change it.")
        return inner, found

    def _made(self, width: int, out: int, settings: Mapping[str, Any]) -> nn.Module:
        target = named(type(self), self.conv)
        fill = {"width": width, "out": out, "relations": self.relations, "one": 1, "yes": True}
        filled = {
            name: self.network(width, out) if self.fills[name] == "network" else fill[self.fills[name]]
            for name, parameter in _parameters(target).items()
            if _is_filled(type(self), target, parameter)
        }
        return target(**filled, **settings)

    def _measured(self, inner: nn.Module, width: int) -> int:
        """Run it on a few nodes; return its width, and note whether it takes weights."""
        self.inner = inner.eval()

        def output(weights: Tensor | None) -> Tensor:
            return self.convolved(x, self.structure(edges, 4), kind, weights, dialogue)

        with self._in_memory(), torch.random.fork_rng(devices=[]), torch.no_grad():
            x, edges, kind, dialogue = self._example(width)
            y = output(None)
            self.takes_weights = False
            if {"weight", "attributes"} & set(self.takes.values()):
                with contextlib.suppress(Exception):  # some take weights with other settings only
                    output(torch.linspace(0.1, 1, 10))
                    self.takes_weights = True
        inner.train()
        if not isinstance(y, Tensor) or y.dim() != 2 or len(y) != 4 or not y.is_floating_point():
            shown = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise MerZooError(f"{self.conv} gives {shown} for four nodes, not a row of numbers for each.")
        return int(y.shape[1])

    def _is_sketched(self) -> bool:
        """Whether it was made without memory, as the model of a file is at first."""
        return torch.empty(0).is_meta or any(x.is_meta for x in self.inner.parameters())

    @contextlib.contextmanager
    def _in_memory(self) -> Iterator[None]:
        """Have one that is only sketched on the processor meanwhile, with any numbers: many look at them."""
        sketched = self.inner
        if self._is_sketched():
            self.inner = copy.deepcopy(sketched).to_empty(device="cpu")
        try:
            with torch.device("cpu"):
                yield
        finally:
            self.inner = sketched

    def _example(self, width: int) -> tuple[Tensor, ...]:
        """Return the states of three nodes and one that nothing reaches, edges, their types, and dialogues."""
        edges = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1, 2, 3], [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]])
        x = torch.linspace(-1, 2, 4 * width).sin().view(4, width)
        return x, edges, torch.arange(10) % self.relations, torch.tensor([0, 0, 0, 1])

    def _trial(self, width: int) -> Found:
        """Find out what the convolution can do, leaving it and the random generator as they are."""
        if not self.mappable or any(isinstance(module, _BatchNorm) for module in self.inner.modules()):
            return Found(False, False)
        x, edges, kind, dialogue = self._example(width)
        plain = _Plain(self)
        calls: list[tuple[Any, ...]] = [(x, edges, kind, None, dialogue)]
        if self.takes_weights:
            calls.append((x, edges, kind, torch.linspace(0.1, 1, 10), dialogue))
        with torch.random.fork_rng(devices=[]):
            return Found(
                all(_succeeds(fakes.run, plain, call) for call in calls),
                all(_succeeds(_map, plain, call) for call in calls),
            )


class _Plain(nn.Module):
    """A convolution as a function of tensors alone."""

    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """Convolve."""
        return self.layer.convolved(x, *rest)


_trials: dict[str, Found] = {}

NETWORKS: dict[str, Any] = {
    "GINConv": lambda width, out, relations: (width, out),
    "GINEConv": lambda width, out, relations: (width, out),
    "EdgeConv": lambda width, out, relations: (2 * width, out),
    "NNConv": lambda width, out, relations: (relations, width * out),
}
"""Widths before and after the network that a convolution wants."""


def _succeeds(act: Callable[..., object], *arguments: Any) -> bool:
    try:
        act(*arguments)
    except Exception:  # whatever it is that this convolution cannot do
        return False
    return True


def _map(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Map over weights, states and edges, and over all but the edges; raise where the results are others."""
    weights = {n: p.detach() for n, p in (*module.named_parameters(), *module.named_buffers())}
    two = {name: torch.stack([x, x * 1.5 if x.is_floating_point() else x]) for name, x in weights.items()}

    def one(state: Any, *given: Any) -> Tensor:
        return torch.func.functional_call(module, state, given)

    training = module.training
    module.eval()
    try:
        for several in (True, False):
            batched = [x is not None and (several or i in (0, 3)) for i, x in enumerate(arguments)]
            stacked = [torch.stack([x, x]) if b else x for x, b in zip(arguments, batched, strict=True)]
            dims = tuple(0 if b else None for b in batched)
            together = torch.func.vmap(one, (0, *dims), randomness="different")(two, *stacked)
            for number in (0, 1):
                alone = one({name: value[number] for name, value in two.items()}, *arguments)
                torch.testing.assert_close(together[number], alone, rtol=1e-4, atol=1e-5)
        module.train()
        torch.func.vmap(one, (0, *dims), randomness="different")(two, *stacked)
    finally:
        module.train(training)


def named(layer: type[Convolution], name: str) -> type:
    """Return a convolution by its name.

    Raises:
        MerZooError: there is none, or it cannot run on the graph of a conversation.
    """
    every = layer.convolutions()
    if name not in every:
        raise MerZooError(f"{layer.library} has no convolution '{name}'.{nearest(name, every)}")
    if reason := why_not(layer, every[name]):
        raise MerZooError(f"{layer.library}'s {name} cannot be a layer: {reason}.")
    return every[name]


def why_not(layer: type[Convolution], target: type) -> str:
    """Return why a convolution cannot be a layer, as far as its signatures tell, or ""."""
    forward = inspect.signature(target.forward).parameters  # type: ignore[attr-defined]
    gives = {layer.gives[name] for name in forward if name in layer.gives}
    if not {"x", "edges"} <= gives:
        wants = [n for n, p in list(forward.items())[1:] if n not in layer.gives and p.default is p.empty]
        return f"it is called with {', '.join(wants)}" if wants else "it makes its own neighbours and takes no edges"
    for name, parameter in list(forward.items())[1:]:
        if name not in layer.gives and parameter.default is parameter.empty and parameter.kind < 2:
            return f"it wants {name}"
    for name, parameter in _parameters(target).items():
        wanted = parameter.default is parameter.empty and name not in layer.fills
        if wanted and _plain(_hints(target).get(name, Any)) is None:
            return f"its setting {name} is not plain data"
    return ""


def given(layer: Convolution, name: str) -> dict[str, Give]:
    """Return what every argument of a convolution's forward is given."""
    forward = inspect.signature(named(type(layer), name).forward).parameters  # type: ignore[attr-defined]
    return {argument: layer.gives[argument] for argument in forward if argument in layer.gives}


def _is_filled(layer: type[Convolution], target: type, parameter: inspect.Parameter) -> bool:
    """Whether it is for us to fill in: networks only where one is a must, `dim` only where it is that of edges."""
    if layer.fills.get(parameter.name) == "network":
        return parameter.default is parameter.empty
    return parameter.name in layer.fills and not (parameter.name == "dim" and "edge_dim" in _parameters(target))


def _settings(layer: type[Convolution], target: type) -> list[Setting]:
    """Read a convolution's settings off its signature: those that are plain data."""
    found = []
    for name, parameter in _parameters(target).items():
        if _is_filled(layer, target, parameter) or name in NEVER:
            continue
        default = parameter.default
        hint = _hints(target).get(name, Any if default is parameter.empty or default is None else type(default))
        kind = _plain(hint)
        if kind is None or not _is_plain(default, parameter):
            continue
        if default is not parameter.empty and kind is not Any:
            kind = kind | type(default)  # not every annotation tells the truth
        found.append(Setting(name, kind, default))
    return found


def _is_plain(value: Any, parameter: inspect.Parameter) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(x, PLAIN) for x in value)
    unknown = parameter.annotation is parameter.empty and value is None and parameter.name in CALLABLES
    return not unknown and (value is parameter.empty or value is None or isinstance(value, PLAIN))


CALLABLES = frozenset({"activation", "apply_func", "norm", "nn"})
"""Settings without a type, None by default, that stand for a function."""


def _parameters(target: type) -> dict[str, inspect.Parameter]:
    named = list(inspect.signature(target.__init__).parameters.values())[1:]  # type: ignore[misc]
    return {p.name: p for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


@functools.cache
def _hints(target: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__)  # type: ignore[misc]
    except Exception:  # a name that only a type checker knows
        return {}


def _plain(hint: Any) -> Any:
    """Return what of a type is plain data, or None."""
    if hint is Any or hint in PLAIN or hint is type(None):
        return hint
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kept = [kind for kind in map(_plain, inside) if kind is not None]
        return functools.reduce(operator.or_, kept) if any(kind is not type(None) for kind in kept) else None
    if origin in (list, tuple, dict) and all(kind is Ellipsis or _plain(kind) is not None for kind in inside):
        return hint
    return None
