"""Recurrence along a directed acyclic graph, the layer of DAG-ERC."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Turns
from mer_zoo.batch.looking import LISTENER, looked
from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.ops import gru
from mer_zoo.parts.ops.cells import GRUCell


class DagGRU(nn.Module):
    r"""Utterance by utterance, attend to the new states of predecessors and mix two GRUs (DAG-ERC §3.3, eq. 3 to 9).

    $$m_i = \sum_j \mathrm{softmax}_j(a\cdot h_j)\, W_{\rho(ij)} h_j,\quad
      h_i = \mathrm{GRU}_C(x_i; m_i) + \mathrm{GRU}_P(m_i; x_i)$$

    The sums run over edges from earlier utterances; other edges are ignored, so the layer is causal. The query's half
    of the published attention cancels in the softmax and is left out. With a `depth`, x of a level is h of the level
    below, and h of all levels comes out side by side. All dialogues, and all nodes of an utterance, advance together,
    and the levels as a wave: each is one turn behind the level below.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored.
    Outputs:
        float `[nodes, depth * width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        depth: levels.

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
        with torch.autocast(
            x.device.type, enabled=False
        ):  # a walk computes its gradient in the precision of its states
            stacked = {
                name: torch.stack([attrgetter(name)(level) for level in self.levels])
                for name, _ in self.levels[0].named_parameters()
            }
            count, depth, turns = edges.nodes_per_utterance, len(self.levels), Turns.of(edges.index)
            # [rows, nodes of an utterance * width]
            inputs = turns.lay(x.to(stacked["maps"].dtype).unflatten(0, (-1, count)).flatten(1))
            arguments = [stacked["score.weight"], edges.pick(stacked["maps"], 1).flatten(1, 2)]
            for of in ("weight", "bias"):  # what both units make of x, and of m
                for one, other in (("ih", "hh"), ("hh", "ih")):
                    pair = stacked[f"context.{of}_{one}"], stacked[f"message.{of}_{other}"]
                    arguments.append(torch.cat(pair, 1) if of == "weight" else torch.cat(pair, 1).unsqueeze(1))
            shown = _predecessors(edges, turns, depth).to(inputs.dtype)
            made, attention, *_ = _Wave.apply(turns.sizes, inputs, shown, *arguments)
            if LISTENER.get() is not None:
                _tell(edges, shown, attention)
            states = made[:, :, edges.reach :].unflatten(2, (-1, count))  # [B, levels, waves, count, width]
            levels = [
                torch.cat([states[:lanes, level, turn + level].flatten(1) for turn, lanes in enumerate(turns.sizes)])
                for level in range(depth)
            ]
            return torch.cat([turns.unlay(level).unflatten(1, (count, -1)) for level in levels], -1).flatten(0, 1)


class DagLevel(nn.Module):
    """The weights of one level of `DagGRU`, without a computation of their own."""

    def __init__(self, width: int, relations: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        self.maps = nn.Parameter(torch.empty(relations, width, width).uniform_(-(width**-0.5), width**-0.5))
        self.context = GRUCell(width, width)
        self.message = GRUCell(width, width)


def _predecessors(edges: Kernel, turns: Turns, depth: int) -> Tensor:
    """1 where a node has an edge from one of the `reach` nodes before its utterance, each level a turn later.

    `[turns + depth - 1, B, depth, nodes of an utterance, relations, reach]`
    """
    count, reach = edges.nodes_per_utterance, edges.reach
    kinds = F.pad(edges.by_distance(edges.one_hot)[..., :reach], (count - 1, 0))  # [relations, B, L * count, ...]
    rows = [kinds[:, :, m::count, count - 1 - m : count - 1 - m + reach] for m in range(count)]
    walked = torch.stack(rows).permute(3, 2, 0, 1, 4)[: len(turns.sizes), turns.order]
    nothing = (0, 0) * 4
    return torch.stack([F.pad(walked, (*nothing, level, depth - 1 - level)) for level in range(depth)], 2)


def _tell(edges: Kernel, shown: Tensor, attention: Tensor) -> None:
    """Tell of the attention of every level, in a batch of one dialogue."""
    waves, _, depth, count, relations, reach = shown.shape
    turns = waves - depth + 1
    for level in range(depth):
        weights = shown[level : level + turns, 0, level] * attention[level, level : level + turns].unsqueeze(-2)
        dense = weights.new_zeros(relations, 1, turns * count, reach + turns * count)
        for turn in range(turns):
            first = turn * count
            dense[:, 0, first : first + count, first : first + reach] = weights[turn].transpose(0, 1)
        looked(dense[..., reach:], edges, target=0)


class _Wave(torch.autograd.Function):
    """The states of all levels, wave by wave, with the gradient written out.

    Takes the sizes of the turns, the inputs `[rows, count * width]`, the predecessors, and the weights of all levels:
    of the score, of the relations, and for x and m the weights of both units side by side, then their biases. Gives the
    states, after as many zeros as may be seen, `[B, levels, reach + waves * count, width]`, then what the gradient
    needs.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        sizes: Sequence[int], x: Tensor, shown: Tensor, score: Tensor, maps: Tensor, *mixes: Tensor
    ) -> tuple[Tensor, ...]:
        of_x, of_m, bias_x, bias_m = mixes
        waves, batch, depth, count, _, reach = shown.shape
        width = of_x.shape[-1]
        into_x, into_m, key, least = of_x.mT.contiguous(), of_m.mT.contiguous(), score.mT, torch.finfo(x.dtype).min
        made = x.new_zeros(batch, depth, reach + waves * count, width)
        scores = x.new_zeros(batch, depth, reach + waves * count)
        last = x.new_zeros(depth, batch * count, width)
        turns = [rows.view(1, -1, width) for rows in x.split(list(sizes))]
        noted: list[tuple[Tensor, ...]] = []
        for wave, lanes in enumerate(_lanes(sizes, depth)):
            start, end, rows = wave * count, wave * count + reach, lanes * count
            now = gru.widened(turns[wave], rows) if wave < len(turns) else torch.zeros_like(last[:1, :rows])
            below = torch.cat([now, last[:-1, :rows]])
            kinds = shown[wave, :lanes]
            attention = scores[:lanes, :, None, start:end].masked_fill(kinds.sum(-2) == 0, least).softmax(-1)
            weights = (kinds * attention.unsqueeze(-2)).flatten(2, 3).flatten(0, 1)
            seen = weights @ made[:lanes, :, start:end].flatten(0, 1)
            sums = seen.view(lanes, depth, count, -1).transpose(0, 1).flatten(1, 2)
            message = sums @ maps
            from_x, from_m = torch.baddbmm(bias_x, below, into_x), torch.baddbmm(bias_m, message, into_m)
            context, of_context = gru.step(from_x[..., : 3 * width], from_m[..., : 3 * width], message)
            own, of_own = gru.step(from_m[..., 3 * width :], from_x[..., 3 * width :], below)
            last = context + own
            made[:lanes, :, end : end + count] = last.unflatten(1, (lanes, count)).transpose(0, 1)
            scores[:lanes, :, end : end + count] = (last @ key).view(depth, lanes, count).transpose(0, 1)
            noted.append((attention.transpose(0, 1), below, sums, message, of_context, of_own))
        return made, *(torch.cat(notes, 1) for notes in zip(*noted, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.sizes = inputs[0]
        ctx.save_for_backward(*inputs[2:7], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *_: None) -> gru.Gradient:
        shown, score, maps, of_x, of_m, made, attention, *traces = ctx.saved_tensors
        below, sums, message = traces[:3]
        _, _, depth, count, relations, reach = shown.shape
        width, sizes, lanes_of = made.shape[-1], ctx.sizes, _lanes(ctx.sizes, depth)
        by_made, by_scores = slopes.clone(), torch.zeros_like(made[..., 0])
        by_below = torch.zeros_like(below[:, : lanes_of[-1] * count])
        parts = zip(*(gru.turns(x, [lanes * count for lanes in lanes_of]) for x in traces), strict=True)
        noted: list[tuple[Tensor, ...]] = []
        shares = gru.turns(attention, lanes_of)
        for wave, (x, _, m, of_context, of_own) in reversed(list(enumerate(parts))):
            lanes, start, end = lanes_of[wave], wave * count, wave * count + reach
            slope = by_made[:lanes, :, end : end + count].transpose(0, 1).flatten(1, 2)
            by_score = by_scores[:lanes, :, end : end + count].transpose(0, 1).flatten(1, 2).unsqueeze(-1)
            above = gru.widened(F.pad(by_below[1:], (0, 0, 0, 0, 0, 1)), lanes * count)  # of the next level and wave
            slope = torch.baddbmm(slope + above, by_score, score)
            seen_c, kept_c, by_message = gru.step_back(slope, of_context, m)
            seen_p, kept_p, by_below = gru.step_back(slope, of_own, x)
            by_x, by_m = torch.cat([seen_c, kept_p], -1), torch.cat([kept_c, seen_p], -1)
            by_below = torch.baddbmm(by_below, by_x, of_x)
            by_message = torch.baddbmm(by_message, by_m, of_m)
            by_sums = (by_message @ maps.mT).unflatten(1, (lanes, count)).transpose(0, 1)
            by_sums = by_sums.reshape(lanes * depth, count * relations, width)
            kinds, share = shown[wave, :lanes], shares[wave].transpose(0, 1)
            weights = (kinds * share.unsqueeze(-2)).flatten(2, 3).flatten(0, 1)
            by_made[:lanes, :, start:end] += (weights.mT @ by_sums).unflatten(0, (lanes, depth))
            by_weights = (by_sums @ made[:lanes, :, start:end].flatten(0, 1).mT).view(kinds.shape)
            by_share = (by_weights * kinds).sum(-2) * share
            by_scores[:lanes, :, start:end] += (by_share - share * by_share.sum(-1, keepdim=True)).sum(2)
            noted.append((by_below[:1], by_message, by_x, by_m))
        by_inputs, by_message, by_x, by_m = (torch.cat(each[::-1], 1) for each in zip(*noted, strict=True))
        firsts = by_inputs[0].split([lanes * count for lanes in lanes_of])
        by_inputs = torch.cat([rows[: size * count].view(size, -1) for rows, size in zip(firsts, sizes, strict=False)])
        by_key = torch.einsum("bln,blnd->ld", by_scores, made).view(score.shape)
        by_mixes = by_x.mT @ below, by_m.mT @ message, by_x.sum(1, keepdim=True), by_m.sum(1, keepdim=True)
        return None, by_inputs, None, by_key, sums.mT @ by_message, *by_mixes


def _lanes(sizes: Sequence[int], depth: int) -> list[int]:
    """Dialogues that take part in every wave: as many as at the turn of the last level."""
    return [sizes[max(0, wave - depth + 1)] for wave in range(len(sizes) + depth - 1)]
