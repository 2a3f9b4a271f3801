"""Attention of every utterance to its whole dialogue, with unbounded scores."""

from __future__ import annotations

from torch import Tensor

from mer_zoo.parts.encoder.nodal_attention import NodalAttention


class DialogueAttention(NodalAttention):
    r"""As `nodal_attention`, without the tanh that bounds its scores (DialogueRNN §3.4, eq. 10 to 12).

    $$y_i = \sum_j \mathrm{softmax}_j\big((W h_i + b)^\top h_j\big)\, h_j$$

    Inputs:
        x: float `[N, width]`; layout: the dialogues.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> DialogueAttention(6)(batch.features["text"], batch.layout).shape
        torch.Size([10, 6])
    """

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Compare."""
        return query @ key.transpose(1, 2)
