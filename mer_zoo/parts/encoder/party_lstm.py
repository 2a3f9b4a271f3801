"""One bidirectional LSTM over each speaker's own utterances."""

from __future__ import annotations

from typing import Any

from torch import nn

from mer_zoo.parts.encoder.party_gru import PartyGRU


class PartyLSTM(PartyGRU):
    """As `PartyGRU`, with long short-term memory (DialogueCRN §3.2.2).

    Inputs, outputs and arguments are those of `PartyGRU`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> PartyLSTM(6, 3, hidden=4)(batch.features["text"], batch.layout).shape
        torch.Size([10, 8])
    """

    cell: Any = nn.LSTM
