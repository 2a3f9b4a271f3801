r"""Gated recurrent units whose gradient is written out, for walks along dialogues.

Autograd would add up the gradient of the weights turn by turn. Written out, a walk notes what its gradient needs, and
the gradient of each weight is one product over all turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

Gradient = tuple[Tensor | None, ...]


def step(seen: Tensor, kept: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the next state and what its gradient needs: $h' = n + z\,(h - n)$ (Cho et al. 2014).

    $$r, z = \sigma(s_{r,z} + k_{r,z}),\qquad n = \tanh(s_n + r\,k_n)$$

    Args:
        seen: the input, mapped to gates: s, float `[..., 3 * width]`.
        kept: the state, mapped to gates: k, alike.
        state: h, float `[..., width]`.

    Returns:
        h' `[..., width]` and r, z, n, $k_n$ side by side `[..., 4 * width]`.
    """
    width = state.shape[-1]
    gates = (seen[..., : 2 * width] + kept[..., : 2 * width]).sigmoid()
    reset, update = gates.split(width, -1)
    last = kept[..., 2 * width :]
    new = torch.addcmul(seen[..., 2 * width :], reset, last).tanh()
    return torch.lerp(new, state, update), torch.cat([gates, new, last], -1)


def step_back(slope: Tensor, trace: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient by seen, by kept, and by the state itself.

    Args:
        slope: gradient by the next state.
        trace: what `step` noted.
        state: the state before.
    """
    width = state.shape[-1]
    gates, new, last = trace.split([2 * width, width, width], -1)
    reset, update = gates.split(width, -1)
    straight = slope * update
    inner = torch.ops.aten.tanh_backward(slope - straight, new)
    outer = torch.cat([inner * last, slope * (state - new)], -1)
    outer = torch.ops.aten.sigmoid_backward(outer, gates)
    return torch.cat([outer, inner], -1), torch.cat([outer, inner * reset], -1), straight


@dataclass
class Unit:
    """A unit on its way along dialogues, several ways (such as directions) beside one another.

    Rows are dialogues, turn after turn: `rows` is the sum of `sizes`.

    Attributes:
        sizes: dialogues that have a turn, the longest first, for every turn.
        seen: what is known of the inputs beforehand, mapped to gates, float `[ways, rows, 3 * width]`.
        mix: weight of the inputs that are known on the way only, `[ways, 3 * width, inputs]`; None: there are none.
        weight, bias: of the state, `[ways, 3 * width, width]`, `[ways, 3 * width]`.
        keep: what every state is multiplied by, such as dropout, `[ways, rows, ...]`; None: nothing.
    """

    sizes: Sequence[int]
    seen: Tensor
    mix: Any  # a tensor or None, which is settled where the unit is made
    weight: Tensor
    bias: Tensor
    keep: Tensor | None

    @cached_property
    def _into(self) -> tuple[Tensor | None, Tensor]:
        return None if self.mix is None else self.mix.mT.contiguous(), self.weight.mT.contiguous()

    @cached_property
    def _turns(self) -> tuple[Sequence[Tensor], Sequence[Tensor] | None]:
        return turns(self.seen, self.sizes), None if self.keep is None else turns(self.keep, self.sizes)

    def ahead(self, turn: int, x: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Take a turn; returns the next state and its trace.

        Args:
            turn: which.
            x: the inputs that are known now, `[ways, batch, inputs]`.
            state: `[ways, batch, width]`, or `[ways, batch, parties, width]` of parties who see alike.
        """
        (mix, into), (every, keep) = self._into, self._turns
        seen = every[turn] if mix is None or x is None else torch.baddbmm(every[turn], x, mix)
        kept = torch.baddbmm(self.bias.unsqueeze(1), state.flatten(1, -2), into).view(*state.shape[:-1], -1)
        result, trace = step(seen if state.dim() == 3 else seen.unsqueeze(2), kept, state)
        return result if keep is None else result * keep[turn], trace

    def back(self, turn: int, slope: Tensor, trace: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient by what was seen, by what was kept, and by the state, all in all."""
        keep = self._turns[1]
        seen, kept, straight = step_back(slope if keep is None else slope * keep[turn], trace, state)
        by_state = torch.baddbmm(straight.flatten(1, -2), kept.flatten(1, -2), self.weight).view(state.shape)
        return seen if state.dim() == 3 else seen.sum(2), kept, by_state

    def by_input(self, seen: Tensor) -> Tensor:
        """Return the gradient by the inputs that are known on the way only."""
        return seen @ cast(Tensor, self.mix)

    def gradients(self, noted: Sequence[tuple[Tensor, Tensor]], x: Tensor | None, states: Tensor) -> Gradient:
        """Return the gradients by seen, mix, weight, bias and keep.

        Args:
            noted: the gradients by what was seen and kept, from the last turn to the first.
            x, states: as `ahead` was given them, of all turns, `[ways, rows, ...]`.
        """
        seen, kept = (torch.cat(slopes[::-1], 1) for slopes in zip(*noted, strict=True))
        kept, states = kept.flatten(1, -2), states.flatten(1, -2)
        return seen, None if x is None else seen.mT @ x, kept.mT @ states, kept.sum(1), None


def turns(rows: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """Part rows by turn: `[ways, rows, ...]` → `[ways, dialogues, ...]` each."""
    return rows.split(list(sizes), 1)


def before(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Give every row what belongs to its dialogue's turn before, zeros to the first turn."""
    parts = turns(rows, sizes)
    return torch.cat([torch.zeros_like(parts[0]), *(x[:, :n] for x, n in zip(parts, sizes[1:], strict=False))], 1)


def widened(rows: Tensor, count: int) -> Tensor:
    """Add rows of zeros for dialogues that have ended: `[ways, fewer, ...]` → `[ways, count, ...]`."""
    return F.pad(rows, (0, 0) * (rows.dim() - 2) + (0, count - rows.shape[1])) if count > rows.shape[1] else rows


class _Walk(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        sizes: Sequence[int], seen: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        unit = Unit(sizes, seen, None, weight, bias, keep)
        state = torch.zeros_like(seen[:, : sizes[0], : weight.shape[-1]])
        states, traces = [], []
        for turn, count in enumerate(sizes):
            state, trace = unit.ahead(turn, None, state[:, :count])
            states.append(state)
            traces.append(trace)
        return torch.cat(states, 1), torch.cat(traces, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.sizes = inputs[0]
        ctx.save_for_backward(*inputs[1:], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *traced: None) -> Gradient:
        seen, weight, bias, keep, states, traces = ctx.saved_tensors
        sizes = ctx.sizes
        unit = Unit(sizes, seen, None, weight, bias, keep)
        earlier = before(states, sizes)
        parts = list(enumerate(zip(*(turns(x, sizes) for x in (slopes, traces, earlier)), strict=True)))
        carried = torch.zeros_like(slopes[:, : sizes[-1]])
        noted: list[tuple[Tensor, Tensor]] = []
        for turn, (slope, trace, state) in reversed(parts):
            by_seen, by_kept, carried = unit.back(turn, slope + widened(carried, sizes[turn]), trace, state)
            noted.append((by_seen, by_kept))
        by_input, _mix, by_weight, by_bias, _keep = unit.gradients(noted, None, earlier)
        return None, by_input, by_weight, by_bias, None


def walk(sizes: Sequence[int], seen: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None = None) -> Tensor:
    """Run units over all turns from zero states.

    Args:
        sizes, seen, weight, bias, keep: as in `Unit`.

    Returns:
        the states, `[ways, rows, width]`.

    Example:
        >>> cell = torch.nn.GRU(3, 2)
        >>> x = torch.randn(5, 4, 3)
        >>> seen = (x @ cell.weight_ih_l0.t() + cell.bias_ih_l0).flatten(0, 1)
        >>> y = walk([4] * 5, seen[None], cell.weight_hh_l0[None], cell.bias_hh_l0[None])
        >>> torch.allclose(y[0], cell(x)[0].flatten(0, 1), atol=1e-6)
        True
    """
    states: Tensor = _Walk.apply(tuple(sizes), seen, weight, bias, keep)[0]
    return states
