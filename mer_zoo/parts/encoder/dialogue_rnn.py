"""Recurrent states for the dialogue, for each party and for the emotion."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout, Turns
from mer_zoo.batch.looking import looked
from mer_zoo.parts.ops import gru
from mer_zoo.parts.ops.cells import GRUCell
from mer_zoo.parts.ops.dropout import Dropout
from mer_zoo.parts.ops.precision import exactly


class DialogueRNN(nn.Module):
    r"""Track a global state, a state per party and an emotion, in both directions (DialogueRNN §3.2, eq. 1 to 9).

    $$g_t = \mathrm{GRU}_G([u_t; q_{s}]; g_{t-1}),\quad
      c_t = \textstyle\sum_{j<t} \mathrm{softmax}_j(g_j\cdot W u_t)\, g_j,\quad
      q_s \leftarrow \mathrm{GRU}_P([u_t; c_t]; q_s),\quad
      e_t = \mathrm{GRU}_E(q_s; e_{t-1})$$

    s is the speaker of turn t. Listeners keep their states, or, with `listener`, take in what they see:
    $q_p \leftarrow \mathrm{GRU}_L([u_t; q_s]; q_p)$. The backward direction reads each dialogue from its own last turn.

    Both directions are one computation. What an utterance itself brings to the gates is computed for all turns at
    once, and so are the emotions, which no other state depends on.

    Inputs:
        x: float `[N, width]`; layout.
    Outputs:
        float `[N, 2 * emotion]`.

    Args:
        width: width of x (a fact).
        speakers: number of parties; any beyond share the last one's state (a fact).
        global_width: width of g.
        party_width: width of q.
        emotion_width: width of e, in each direction.
        listener: update the states of listeners too.
        dropout: probability, on every state.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> DialogueRNN(6, 3, emotion_width=4)(batch.features["text"], batch.layout).shape
        torch.Size([10, 8])
    """

    def __init__(
        self,
        width: int,
        speakers: int,
        *,
        global_width: int = 150,
        party_width: int = 150,
        emotion_width: int = 100,
        listener: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.out_width, self.speakers = 2 * emotion_width, speakers
        widths = (width, global_width, party_width, emotion_width)
        self.ahead, self.back = (DialogueCells(*widths, listener=listener) for _ in range(2))
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Walk along the dialogues in both directions."""
        with exactly(x.device):  # a walk computes its gradient in the precision of its states
            return self._walk(x.to(self.ahead.attention.weight.dtype), layout)

    def _walk(self, x: Tensor, layout: Layout) -> Tensor:
        ways = Turns.of(layout), Turns.of(layout, backwards=True)
        sizes = ways[0].sizes

        def weight(name: str) -> Tensor:
            return torch.stack([attrgetter(name)(way) for way in (self.ahead, self.back)])

        def keep(*shape: int) -> Tensor | None:
            return self.drop(x.new_ones(*u.shape[:2], *shape)) if self.training and self.drop.p else None

        speaker = layout.speaker.clamp(max=self.speakers - 1)
        said = (speaker.unsqueeze(1) == torch.arange(self.speakers, device=x.device)).to(x.dtype)
        u, said = (torch.stack([way.lay(y) for way in ways]) for y in (x, said))  # [directions, rows, width]
        cells: list[Tensor | None] = []
        for name in ("globals", "party", *(["listener"] if self.ahead.listener is not None else [])):
            own, mix = weight(f"{name}.weight_ih").tensor_split([x.shape[1]], -1)
            weights = weight(f"{name}.weight_hh")
            several = (self.speakers,) if name == "listener" else ()
            seen = torch.baddbmm(weight(f"{name}.bias_ih").unsqueeze(1), u, own.mT)
            cells += [seen, mix, weights, weight(f"{name}.bias_hh"), keep(*several, weights.shape[-1])]
        parties, _, _, attention, *_ = _Walk.apply(sizes, said, u @ weight("attention.weight").mT, *cells)
        for number, mirrored in enumerate((False, True)):
            looked(attention[:, number].mT, name="mirrored" if mirrored else "attention")
        seen = torch.baddbmm(weight("emotion.bias_ih").unsqueeze(1), parties, weight("emotion.weight_ih").mT)
        weights = weight("emotion.weight_hh")
        emotions = gru.walk(sizes, seen, weights, weight("emotion.bias_hh"), keep(weights.shape[-1]))
        return torch.cat([way.unlay(rows) for way, rows in zip(ways, emotions.unbind(), strict=True)], -1)


class DialogueCells(nn.Module):
    """The weights of one direction of `DialogueRNN`, without a computation of their own."""

    def __init__(self, width: int, global_width: int, party_width: int, emotion_width: int, *, listener: bool) -> None:
        super().__init__()
        self.attention = nn.Linear(width, global_width, bias=False)
        self.globals = GRUCell(width + party_width, global_width)
        self.party = GRUCell(width + global_width, party_width)
        self.listener = GRUCell(width + party_width, party_width) if listener else None
        self.emotion = GRUCell(party_width, emotion_width)


class _Walk(torch.autograd.Function):
    """The states of dialogue and parties, turn by turn, with the gradient written out.

    Takes the sizes of the turns, who speaks, the queries, and of each cell what makes a `Unit`; gives the speaker's
    new states, then what the gradient needs.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(sizes: Sequence[int], said: Tensor, query: Tensor, *cells: Tensor | None) -> tuple[Tensor, ...]:
        whole, party, *listener = units(sizes, cells)
        ways, count, size = said.shape[0], sizes[0], len(sizes)
        state = context = torch.zeros_like(query[:, :count])
        cast = query.new_zeros(ways, count, said.shape[-1], party.weight.shape[-1])
        history, asked = (query.new_zeros(count, ways, size, query.shape[-1]) for _ in range(2))
        attention = query.new_zeros(count, ways, size, size)  # of a state, by every later turn
        results: list[Tensor] = []
        noted: list[list[Tensor]] = []
        for turn, (speaks, asks) in enumerate(zip(gru.turns(said, sizes), gru.turns(query, sizes), strict=True)):
            count = speaks.shape[1]
            cast, state, context = cast[:, :count], state[:, :count], context[:, :count]
            asked[:count, :, turn] = asks.transpose(0, 1)
            own = (speaks.unsqueeze(2) @ cast).squeeze(2)
            if turn:
                seen = history[:count, :, :turn].flatten(0, 1)
                scores = (seen @ asked[:count, :, turn].flatten(0, 1).unsqueeze(-1)).softmax(1)
                attention[:count, :, :turn, turn] = scores.view(count, ways, turn)
                context = (scores.mT @ seen).view(count, ways, -1).transpose(0, 1)
            state, of_state = whole.ahead(turn, own, state)
            history[:count, :, turn] = state.transpose(0, 1)
            new, of_party = party.ahead(turn, context, own)
            notes = [own, context, of_state, of_party]
            others = cast
            for unit in listener:
                others, of_listener = unit.ahead(turn, new, cast)
                notes += [cast, of_listener]
            cast = torch.where(speaks.bool().unsqueeze(-1), new.unsqueeze(2), others)
            results.append(new)
            noted.append(notes)
        stacked = [torch.cat(notes, 1) for notes in zip(*noted, strict=True)]
        return torch.cat(results, 1), history, asked, attention, *stacked

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.sizes, *given = inputs
        ctx.given = len(given)
        ctx.save_for_backward(*given, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *_: None) -> gru.Gradient:
        sizes = ctx.sizes
        said, _query, *cells = ctx.saved_tensors[: ctx.given]
        results, history, asked, attention, owns, contexts, *traces = ctx.saved_tensors[ctx.given :]
        whole, party, *listener = units(sizes, cells)
        ways, size = said.shape[0], len(sizes)
        earlier = gru.before(_rows(history, sizes), sizes)
        carried = torch.zeros_like(earlier[:, : sizes[-1]])
        by_cast = said.new_zeros(ways, sizes[-1], said.shape[-1], owns.shape[-1])
        by_context, by_score = torch.zeros_like(history), torch.zeros_like(attention)
        noted: list[list[tuple[Tensor, Tensor]]] = [[] for _ in (whole, party, *listener)]
        parts = zip(*(gru.turns(x, sizes) for x in (slopes, said, earlier, owns, *traces)), strict=True)
        for turn, (slope, said_now, state, own, of_state, of_party, *heard) in reversed(list(enumerate(parts))):
            count, speaks = sizes[turn], said_now.bool().unsqueeze(-1)
            by_cast, carried = gru.widened(by_cast, count), gru.widened(carried, count)
            by_new = (said_now.unsqueeze(2) @ by_cast).squeeze(2) + slope
            for unit in listener:
                seen, kept, by_cast = unit.back(turn, torch.where(speaks, 0.0, by_cast), heard[1], heard[0])
                noted[2].append((seen, kept))
                by_new = by_new + unit.by_input(seen)
            seen, kept, by_own = party.back(turn, by_new, of_party, own)
            noted[1].append((seen, kept))
            by_context[:count, :, turn] = party.by_input(seen).transpose(0, 1)
            if turn + 1 < size:  # what later turns recalled of this one
                lanes = [x[:count].flatten(0, 1) for x in (attention, by_context, by_score, asked)]
                recalled, its, scored, asks = lanes
                later = recalled[:, turn, turn + 1 :].unsqueeze(1) @ its[:, turn + 1 :]
                later = torch.baddbmm(later, scored[:, turn, turn + 1 :].unsqueeze(1), asks[:, turn + 1 :])
                carried = carried + later.view(count, ways, -1).transpose(0, 1)
            seen, kept, carried = whole.back(turn, carried, of_state, state)
            noted[0].append((seen, kept))
            by_own = by_own + whole.by_input(seen)
            by_cast = torch.where(speaks, by_own.unsqueeze(2), by_cast)
            if turn:
                weights = attention[:count, :, :turn, turn]
                inner = (history[:count, :, :turn] @ by_context[:count, :, turn].unsqueeze(-1)).squeeze(-1) * weights
                by_score[:count, :, :turn, turn] = inner - weights * inner.sum(-1, keepdim=True)
        by_query = _rows(by_score.mT @ history, sizes)
        of_units = [(whole, owns, earlier), (party, contexts, owns), *((u, results, traces[2]) for u in listener)]
        found = [unit.gradients(own, *rest) for own, (unit, *rest) in zip(noted, of_units, strict=True)]
        return None, None, by_query, *(slope for slopes in found for slope in slopes)


def _rows(lanes: Tensor, sizes: Sequence[int]) -> Tensor:
    """What lies by dialogue as rows of a walk: `[B, ways, turns, width]` → `[ways, rows, width]`."""
    return torch.cat([lanes[:count, :, turn].transpose(0, 1) for turn, count in enumerate(sizes)], 1)


def units(sizes: Sequence[int], cells: Sequence[Tensor | None]) -> list[gru.Unit]:
    """Return the cells of a walk: of the dialogue, of the speaker and, with listeners, of those."""
    return [gru.Unit(sizes, *cells[i : i + 5]) for i in range(0, len(cells), 5)]  # type: ignore[arg-type]
