"""Recurrence along a directed acyclic graph, the layer of DAG-ERC."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch import launch_cost
from mer_zoo.batch.index import Turns
from mer_zoo.batch.looking import LISTENER, looked
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.ops import gru
from mer_zoo.parts.ops.cells import GRUCell
from mer_zoo.parts.ops.precision import exactly


class DagGRU(nn.Module):
    r"""Utterance by utterance, attend to the new states of predecessors and mix two GRUs (DAG-ERC §3.3, eq. 3 to 9).

    $$m_i = \sum_j \mathrm{softmax}_j(a\cdot h_j)\, W_{\rho(ij)} h_j,\quad
      h_i = \mathrm{GRU}_C(x_i; m_i) + \mathrm{GRU}_P(m_i; x_i)$$

    The sums run over edges from earlier utterances; other edges are ignored, so the layer is causal. The query's half
    of the published attention cancels in the softmax and is left out. With a `depth`, x of a level is h of the level
    below, and h of all levels comes out side by side. All dialogues, and all nodes of an utterance, advance together.
    Where launches cost more than the work, so do the levels, as a wave: each is one turn behind the level below.
    Elsewhere a level walks when the one below is done, so that what it makes of its inputs is one product.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored.
    Outputs:
        float `[nodes, depth * width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        depth: levels.

    Raises:
        MerZooError: there are nodes beside the utterances.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> DagGRU(6, edges.names, depth=2)(batch.features["text"], edges, None).shape
        torch.Size([10, 12])
    """

    def __init__(self, width: int, relations: tuple[str, ...], *, depth: int = 1) -> None:
        super().__init__()
        self.out_width = depth * width
        self.levels = nn.ModuleList(DagLevel(width, len(relations)) for _ in range(depth))

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Walk along the dialogues."""
        if edges.own:
            raise MerZooError("layer/dag_gru: walks along utterances alone. Leave the graph's own nodes out by `only`.")
        with exactly(x.device):  # a walk computes its gradient in the precision of its states
            count, turns = edges.nodes_per_utterance, Turns.of(edges.index)
            levels = [cast(DagLevel, level) for level in self.levels]
            below = turns.lay(x.to(levels[0].maps.dtype).unflatten(0, (-1, count)).flatten(1)).view(-1, x.shape[-1])
            together = len(levels) if launch_cost.is_costly(x.device) else 1
            found: list[Tensor] = []
            for first in range(0, len(levels), together):
                found += _walk(levels[first : first + together], below, edges, turns)
                below = found[-1]
            laid = torch.cat(found, -1).view(len(turns.there), -1)
            return turns.unlay(laid).view(-1, self.out_width)


class DagLevel(nn.Module):
    """The weights of one level of `DagGRU`, without a computation of their own."""

    def __init__(self, width: int, relations: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        self.maps = nn.Parameter(torch.empty(relations, width, width).uniform_(-(width**-0.5), width**-0.5))
        self.context = GRUCell(width, width)
        self.message = GRUCell(width, width)


def _walk(levels: list[DagLevel], x: Tensor, edges: Kernel, turns: Turns) -> list[Tensor]:
    """Return the states of some levels, all `[rows, width]`: of one, or of several that walk as a wave."""
    depth, count, sizes = len(levels), edges.nodes_per_utterance, turns.sizes
    later = (depth - 1) * sizes[-1]  # rows of the waves after the last turn of the first level
    if depth > 1:
        x, sizes = F.pad(x, (0, 0, 0, later * count)), (*sizes, *sizes[-1:] * (depth - 1))
    stacked = {
        name: torch.stack([attrgetter(name)(level) for level in levels]) for name, _ in levels[0].named_parameters()
    }
    score, maps = stacked["score.weight"], edges.pick(stacked["maps"], 1).flatten(1, 2)
    of_x, of_m, bias_x, bias_m = (  # what both units make of x, and of m
        torch.cat([stacked[f"context.{kind}_{one}"], stacked[f"message.{kind}_{other}"]], 1)
        for kind in ("weight", "bias")
        for one, other in (("ih", "hh"), ("hh", "ih"))
    )
    known = F.linear(x, of_x[0], bias_x[0])
    shown = _predecessors(edges, turns, depth).to(x.dtype)
    mixes = of_x[1:], of_m, bias_x[1:].unsqueeze(1), bias_m.unsqueeze(1)
    states, _, attention, *_ = _Wave.apply(sizes, x, known, shown, score, maps, *mixes)
    if LISTENER.get() is not None:
        _tell(edges, shown, attention)
    return [states[level, level * sizes[-1] * count :][: len(turns.there) * count] for level in range(depth)]


def _predecessors(edges: Kernel, turns: Turns, depth: int) -> Tensor:
    """1 where a node has an edge from one of the `reach` nodes before its utterance, each level a turn later.

    `[turns + depth - 1, depth, B, nodes of an utterance, relations, reach]`
    """
    count, reach = edges.nodes_per_utterance, edges.reach
    kinds = F.pad(edges.by_distance(edges.one_hot)[..., :reach], (count - 1, 0))  # [relations, B, L * count, ...]
    rows = [kinds[:, :, m::count, count - 1 - m : count - 1 - m + reach] for m in range(count)]
    walked = torch.stack(rows).permute(3, 2, 0, 1, 4)[: len(turns.sizes), turns.order]
    nothing = (0, 0) * 4
    return torch.stack([F.pad(walked, (*nothing, level, depth - 1 - level)) for level in range(depth)], 1)


def _tell(edges: Kernel, shown: Tensor, attention: Tensor) -> None:
    """Tell of the attention of every level, in a batch of one dialogue."""
    waves, depth, _, count, relations, reach = shown.shape
    turns = waves - depth + 1
    for level in range(depth):
        told = attention[level].unflatten(0, (waves, count))[level : level + turns]
        weights = shown[level : level + turns, level, 0] * told.unsqueeze(-2)
        dense = weights.new_zeros(relations, 1, turns * count, reach + turns * count)
        for turn in range(turns):
            first = turn * count
            dense[:, 0, first : first + count, first : first + reach] = weights[turn].transpose(0, 1)
        looked(dense[..., reach:], edges, target=0)


class _Wave(torch.autograd.Function):
    """The states of all levels, wave by wave, with the gradient written out.

    Takes the dialogues of every wave, the inputs `[rows, width]` and what the first level makes of them, the
    predecessors, and the weights of all levels: of the score, of the relations, and those by which both units, side by
    side, read x (but for the first level) and m, then their biases. Gives the states `[levels, rows, width]`, then what
    the gradient needs. Dialogues may end early only if there is one level.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        sizes: Sequence[int], x: Tensor, known: Tensor, shown: Tensor, score: Tensor, maps: Tensor, *mixes: Tensor
    ) -> tuple[Tensor, ...]:
        of_x, of_m, bias_x, bias_m = mixes
        _, depth, batch, count, _, reach = shown.shape
        width = x.shape[-1]
        into_x, into_m, key, least = of_x.mT, of_m.mT.contiguous(), score.mT, torch.finfo(x.dtype).min
        made = x.new_zeros(depth, batch, reach + len(sizes) * count, width)  # nothing comes before the first turn
        scores = made[..., 0].clone()
        last = x.new_zeros(depth, batch * count, width)
        hidden = shown.sum(-2) == 0
        rows = [lanes * count for lanes in sizes]
        noted: list[tuple[Tensor, ...]] = []
        for wave, (lanes, below, from_x) in enumerate(zip(sizes, x.split(rows), known.split(rows), strict=True)):
            start, end = wave * count, wave * count + reach
            below, from_x = below.unsqueeze(0), from_x.unsqueeze(0)
            if depth > 1:
                from_x = torch.cat([from_x, torch.baddbmm(bias_x, last[:-1], into_x)])
                below = torch.cat([below, last[:-1]])
            off = hidden[wave, :, :lanes]
            attention = scores[:, :lanes, None, start:end].masked_fill(off, least).softmax(-1)
            weights = (shown[wave, :, :lanes] * attention.unsqueeze(-2)).flatten(2, 3).flatten(0, 1)
            seen = weights @ made[:, :lanes, start:end].flatten(0, 1)
            sums = seen.view(depth, lanes * count, -1)
            message = sums @ maps
            from_m = torch.baddbmm(bias_m, message, into_m)
            context, of_context = gru.step(from_x[..., : 3 * width], from_m[..., : 3 * width], message)
            own, of_own = gru.step(from_m[..., 3 * width :], from_x[..., 3 * width :], below)
            last = context + own
            made[:, :lanes, end : end + count] = last.unflatten(1, (lanes, count))
            scores[:, :lanes, end : end + count] = (last @ key).view(depth, lanes, count)
            noted.append((last, attention.flatten(1, 2), below, sums, message, of_context, of_own))
        states, *traces = (torch.cat(notes, 1) for notes in zip(*noted, strict=True))
        return states, made, *traces

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        sizes, _, _, *given = inputs
        ctx.sizes = sizes
        ctx.save_for_backward(*given[:5], *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *_: None) -> gru.Gradient:
        shown, score, maps, of_x, of_m, made, *traces = ctx.saved_tensors
        _, below, sums, message, *_ = traces
        _, depth, _, count, relations, reach = shown.shape
        width, rows = made.shape[-1], [lanes * count for lanes in ctx.sizes]
        by_made, by_scores = torch.zeros_like(made), torch.zeros_like(made[..., 0])
        above = torch.zeros_like(below[1:, : rows[-1]])  # what the level above, a wave later, tells the states below it
        parts = list(enumerate(zip(ctx.sizes, *(gru.turns(each, rows) for each in (slopes, *traces)), strict=True)))
        noted: list[tuple[Tensor, ...]] = []
        for wave, (lanes, slope, share, x, _, m, of_context, of_own) in reversed(parts):
            start, end = wave * count, wave * count + reach
            slope = slope + by_made[:, :lanes, end : end + count].flatten(1, 2)
            by_score = by_scores[:, :lanes, end : end + count].flatten(1, 2).unsqueeze(-1)
            slope = torch.addcmul(slope, by_score, score)
            if depth > 1:
                slope = slope + F.pad(above, (0, 0, 0, 0, 0, 1))
            seen_c, kept_c, by_message = gru.step_back(slope, of_context, m)
            seen_p, kept_p, by_below = gru.step_back(slope, of_own, x)
            by_x, by_m = torch.cat([seen_c, kept_p], -1), torch.cat([kept_c, seen_p], -1)
            if depth > 1:
                above = torch.baddbmm(by_below[1:], by_x[1:], of_x)
            by_message = torch.baddbmm(by_message, by_m, of_m)
            by_sums = (by_message @ maps.mT).view(depth * lanes, count * relations, width)
            kinds, share = shown[wave, :, :lanes], share.unflatten(1, (lanes, count))
            weights = (kinds * share.unsqueeze(-2)).flatten(2, 3).flatten(0, 1)
            by_made[:, :lanes, start:end] += (weights.mT @ by_sums).unflatten(0, (depth, lanes))
            by_weights = (by_sums @ made[:, :lanes, start:end].flatten(0, 1).mT).view(kinds.shape)
            by_share = (by_weights * kinds).sum(-2) * share
            by_scores[:, :lanes, start:end] += (by_share - share * by_share.sum(-1, keepdim=True)).sum(2)
            noted.append((by_below[:1], by_message, by_x, by_m))
        by_inputs, by_message, by_x, by_m = (torch.cat(each[::-1], 1) for each in zip(*noted, strict=True))
        by_key = torch.einsum("dbn,dbnw->dw", by_scores, made).view(score.shape)
        by_of_x, by_bias_x = by_x[1:].mT @ below[1:], by_x[1:].sum(1, keepdim=True)
        by_of_m, by_bias_m = by_m.mT @ message, by_m.sum(1, keepdim=True)
        by_maps = sums.mT @ by_message
        return None, by_inputs[0], by_x[0], None, by_key, by_maps, by_of_x, by_of_m, by_bias_x, by_bias_m
