"""DialogueRNN and DAG-ERC in the plain form of one turn after the other, written from the specs.

Every batch is padded to its longest dialogue; each direction and each level is a Python loop of its own; states are
appended to a tensor of all earlier ones; autograd makes the gradient. What the published layers compute and need not is
kept: DialogueRNN makes a candidate for every party, whoever speaks, and DAG-ERC sums mapped states, so that every turn
maps all earlier ones by both matrices. The query's half of DAG-ERC's scores, which cancels, is left out here too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.parts.encoder.dialogue_rnn import DialogueCells, DialogueRNN
from mer_zoo.parts.layer.dag_gru import DagGRU


def dialogue_rnn(part: DialogueRNN, x: Tensor, speakers: list[list[int]]) -> Tensor:
    """`[N, d]` → `[N, 2 * emotion]`: one direction after the other."""
    lengths = [len(dialogue) for dialogue in speakers]
    ahead = _direction(part, part.ahead, list(x.split(lengths)), speakers)
    turned = [rows.flip(0) for rows in x.split(lengths)]
    back = _direction(part, part.back, turned, [dialogue[::-1] for dialogue in speakers])
    return torch.cat([torch.cat([a, b.flip(0)], 1) for a, b in zip(ahead, back, strict=True)])


def _direction(part: DialogueRNN, cells: DialogueCells, rows: list[Tensor], speakers: list[list[int]]) -> list[Tensor]:
    u, count, batch = nn.utils.rnn.pad_sequence(rows), part.speakers, len(rows)
    parties = u.new_zeros(batch, count, cells.party.hidden_size)
    emotion = u.new_zeros(batch, cells.emotion.hidden_size)
    state = u.new_zeros(batch, cells.globals.hidden_size)
    history, emotions = u.new_zeros(0, *state.shape), []

    def drop(x: Tensor) -> Tensor:
        return F.dropout(x, part.drop.p, part.training)

    def each(x: Tensor) -> Tensor:
        return x.unsqueeze(1).expand(-1, count, -1).flatten(0, 1)

    for turn, now in enumerate(u):
        who = [dialogue[turn] if turn < len(dialogue) else 0 for dialogue in speakers]
        said = F.one_hot(torch.tensor(who, device=u.device), count).to(u.dtype).unsqueeze(2)
        own = torch.stack([parties[b, s] for b, s in enumerate(who)])
        context = torch.zeros_like(state)
        if turn:
            scores = (history * cells.attention(now)).sum(2).softmax(0)
            context = (scores.unsqueeze(2) * history).sum(0)
        state = drop(_gru(cells.globals, torch.cat([now, own], 1), state))
        history = torch.cat([history, state.unsqueeze(0)])
        candidates = _gru(cells.party, each(torch.cat([now, context], 1)), parties.flatten(0, 1))
        candidates, others = drop(candidates).unflatten(0, (batch, count)), parties
        if cells.listener is not None:
            new = torch.stack([candidates[b, s] for b, s in enumerate(who)])
            others = drop(_gru(cells.listener, each(torch.cat([now, new], 1)), parties.flatten(0, 1)))
            others = others.unflatten(0, (batch, count))
        parties = said * candidates + (1 - said) * others
        emotion = drop(_gru(cells.emotion, torch.stack([parties[b, s] for b, s in enumerate(who)]), emotion))
        emotions.append(emotion)
    return [states[: len(d)] for states, d in zip(torch.stack(emotions, 1), speakers, strict=True)]


def _gru(cell: nn.GRUCell, x: Tensor, state: Tensor) -> Tensor:
    return torch.gru_cell(x, state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)


def predecessors(speakers: list[list[int]], turns: int) -> tuple[Tensor, Tensor]:
    """Whether i sees j, and whether they have the same speaker, `[B, L, L]`, by Python loops back from every i."""
    longest = max(len(dialogue) for dialogue in speakers)
    seen, same = (torch.zeros(len(speakers), longest, longest, dtype=torch.bool) for _ in range(2))
    for b, dialogue in enumerate(speakers):
        for i, speaker in enumerate(dialogue):
            own = 0
            for j in range(i - 1, -1, -1):
                seen[b, i, j], same[b, i, j] = True, dialogue[j] == speaker
                own += dialogue[j] == speaker
                if own == turns:
                    break
    return seen, same


def dag_gru(part: DagGRU, x: Tensor, speakers: list[list[int]], turns: int) -> Tensor:
    """`[N, d]` → `[N, depth * d]`: level after level, turn after turn."""
    lengths = [len(dialogue) for dialogue in speakers]
    h = nn.utils.rnn.pad_sequence(list(x.split(lengths)), batch_first=True)
    seen, same = (each.to(x.device) for each in predecessors(speakers, turns))
    found = []
    for level in part.levels:
        made = h.new_zeros(len(h), 0, h.shape[2])
        for turn, now in enumerate(h.unbind(1)):
            message = torch.zeros_like(now)
            if turn:
                shown, alike = seen[:, turn, :turn], same[:, turn, :turn].to(h.dtype).unsqueeze(2)
                weights = level.score(made).squeeze(-1).masked_fill(~shown, -1e30).softmax(1) * shown
                own, other = (made @ matrix for matrix in level.maps)
                message = (weights.unsqueeze(1) @ (own * alike + other * (1 - alike))).squeeze(1)
            new = _gru(level.context, now, message) + _gru(level.message, message, now)
            made = torch.cat([made, new.unsqueeze(1)], 1)
        h = made
        found.append(h)
    return torch.cat([rows[:n] for rows, n in zip(torch.cat(found, -1), lengths, strict=True)])
