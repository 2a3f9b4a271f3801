"""Recurrent states for the dialogue, for each party and for the emotion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.batch.looking import looked
from mer_zoo.parts.ops.cells import GRUCell


class DialogueRNN(nn.Module):
    r"""Track a global state, a state per party and an emotion, in both directions (DialogueRNN §3.2, eq. 1 to 9).

    $$g_t = \mathrm{GRU}_G([u_t; q_{s}]; g_{t-1}),\quad
      c_t = \textstyle\sum_{j<t} \mathrm{softmax}_j(g_j\cdot W u_t)\, g_j,\quad
      q_s \leftarrow \mathrm{GRU}_P([u_t; c_t]; q_s),\quad
      e_t = \mathrm{GRU}_E(q_s; e_{t-1})$$

    s is the speaker of turn t. Listeners keep their states, or, with `listener`, take in what they see:
    $q_p \leftarrow \mathrm{GRU}_L([u_t; q_s]; q_p)$. The backward direction reads each dialogue from its own last turn.

    Inputs:
        x: float `[N, width]`; layout.
    Outputs:
        float `[N, 2 * emotion]`.

    Args:
        width: width of x (a fact).
        speakers: number of parties; what any further ones say changes no party state (a fact).
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
        self.ahead, self.back = (
            DialogueCell(*widths, listener=listener, dropout=dropout, mirrored=mirrored) for mirrored in (False, True)
        )

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Walk along the dialogues in both directions."""
        parties = torch.arange(self.speakers, device=x.device)
        said = (layout.speaker.unsqueeze(1) == parties).to(x.dtype)
        u, said = layout.pad(x), layout.pad(said)
        place = torch.arange(u.shape[1], device=x.device)
        last = layout.lengths.unsqueeze(1) - 1
        mirror = torch.where(place <= last, last - place, place).unsqueeze(-1)  # its own inverse; padding stays behind

        def turn(y: Tensor) -> Tensor:
            return y.gather(1, mirror.expand(-1, -1, y.shape[-1]))

        emotions = torch.cat([self.ahead(u, said), turn(self.back(turn(u), turn(said)))], -1)
        return layout.unpad(emotions)


class DialogueCell(nn.Module):
    """One direction of `DialogueRNN`.

    Inputs:
        u: float `[B, L, width]`; said: one-hot of the speaker `[B, L, parties]`, zeros in padding.
    Outputs:
        float `[B, L, emotion_width]`.
    """

    def __init__(
        self,
        width: int,
        global_width: int,
        party_width: int,
        emotion_width: int,
        *,
        listener: bool,
        dropout: float,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.mirrored = mirrored  # its first turn is a dialogue's last, for those who are told of its attention
        self.attention = nn.Linear(width, global_width, bias=False)
        self.globals = GRUCell(width + party_width, global_width)
        self.party = GRUCell(width + global_width, party_width)
        self.listener = GRUCell(width + party_width, party_width) if listener else None
        self.emotion = GRUCell(party_width, emotion_width)
        self.drop = nn.Dropout(dropout)

    def forward(self, u: Tensor, said: Tensor) -> Tensor:
        """Walk from the first turn to the last."""
        batch, parties = u.shape[0], said.shape[-1]
        query = self.attention(u)
        state = u.new_zeros(batch, self.globals.hidden_size)
        party = u.new_zeros(batch, parties, self.party.hidden_size)
        emotion = u.new_zeros(batch, self.emotion.hidden_size)
        context = torch.zeros_like(state)
        states: list[Tensor] = []
        emotions: list[Tensor] = []
        for turn, (now, speaker) in enumerate(zip(u.unbind(1), said.unsqueeze(-1).unbind(1), strict=True)):
            own = (speaker * party).sum(1)
            if states:
                seen = torch.stack(states, 1)
                attention = (seen @ query[:, turn].unsqueeze(-1)).softmax(1)
                looked(attention.mT, target=turn)
                context = (attention * seen).sum(1)
            state = self.drop(self.globals(torch.cat([now, own], -1), state))
            own = self.drop(self.party(torch.cat([now, context], -1), own))
            others = party
            if self.listener is not None:
                heard = torch.cat([now, own], -1).unsqueeze(1).expand(-1, parties, -1).flatten(0, 1)
                others = self.drop(self.listener(heard, party.flatten(0, 1))).unflatten(0, (batch, parties))
            party = speaker * own.unsqueeze(1) + (1 - speaker) * others
            emotion = self.drop(self.emotion(own, emotion))
            states.append(state)
            emotions.append(emotion)
        return torch.stack(emotions, 1)
