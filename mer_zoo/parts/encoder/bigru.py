"""A bidirectional GRU over every dialogue."""

from __future__ import annotations

from torch import nn

from mer_zoo.parts.encoder.bilstm import BiLSTM


class BiGRU(BiLSTM):
    """As `BiLSTM`, with gated recurrent units (MM-DFN §2.2).

    Inputs, outputs and arguments are those of `BiLSTM`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> BiGRU(6, hidden=4)(batch.features["text"], batch.layout).shape
        torch.Size([10, 8])
    """

    cell = nn.GRU
