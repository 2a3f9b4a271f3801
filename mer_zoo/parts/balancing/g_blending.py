"""Gradient blending."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mer_zoo.errors import MerZooError
from mer_zoo.parts.balancing.base import Balanced, Balancing, Features, Flow
from mer_zoo.parts.balancing.unimodal import modality_losses
from mer_zoo.parts.loss.nll import negative_log_likelihood

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output
    from mer_zoo.corpus import ConversationBatch

FUSED = "fused"


class GBlending(Balancing):
    r"""Weigh the losses of the modalities and the fused one by how well each generalises (Wang et al. 2020).

    With $V_k$ and $T_k$ the mean cross entropy of head k (one per modality, and the fused) over an epoch, on dialogues
    held out and on those trained on, both compared with `interval` epochs before:
    $$O_k = V_k - T_k,\qquad w_k \propto \left| \frac{\Delta V_k}{(\Delta O_k)^2} \right|,\qquad \sum_k w_k = 1,\qquad
      L' = w_{\text{fused}} L + \sum_m w_m \mathrm{CE}_m$$
    Weights are equal until the first comparison. $|\Delta O|$ counts as at least 0.01, so that a head that does not
    overfit at all does not take everything.

    The held-out dialogues are a share of the training dialogues, chosen by a hash of their features, so they are the
    same in every epoch; their labels are never trained on. The losses should not be in the recipe's loss already: use
    `nll` or another on the fused logits.

    Inputs:
        loss: scalar; output: `Output` with a head per modality; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        modalities, classes: facts.
        held_out: share of the training dialogues that estimates generalisation, between 0 and 1.
        interval: epochs between estimates, at least 1.

    Raises:
        MerZooError: fewer than two modalities, a setting out of range, a modality without a head, or a first epoch in
            which no labelled dialogue was held out.

    Example:
        >>> part = GBlending(("text", "audio"), 6)
        >>> before = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
        >>> now = torch.tensor([[0.6, 0.4, 0.6], [0.8, 0.8, 0.8]])  # trained on; held out
        >>> part.blend(before, now).round(decimals=3)
        tensor([0.4440, 0.1110, 0.4440])
    """

    def __init__(self, modalities: Sequence[str], classes: int, *, held_out: float = 0.2, interval: int = 5) -> None:
        super().__init__(modalities, classes)
        if not 0 < held_out < 1 or interval < 1:
            raise MerZooError(
                f"`held_out` is {held_out} and `interval` {interval}, but a share between 0 and 1 and at least one "
                "epoch are needed."
            )
        self.held_out, self.interval = held_out, interval
        heads = len(self.modalities) + 1
        self.weights: Tensor
        self.sums: Tensor
        self.counts: Tensor
        self.reference: Tensor
        self.register_buffer("weights", torch.full((heads,), 1 / heads))
        self.register_buffer("sums", torch.zeros(2, heads))  # trained on, held out
        self.register_buffer("counts", torch.zeros(2, 1))
        self.register_buffer("reference", torch.zeros(2, heads))

    def is_held_out(self, batch: ConversationBatch) -> Tensor:
        """Return which utterances lie in held-out dialogues, bool `[N]`."""
        # The largest magnitude does not depend on how a batch is laid out, to the last bit.
        largest = [batch.layout.pad(batch.features[m]).abs().amax((1, 2)) for m in self.modalities]
        bits = torch.stack(largest).sum(0).float().view(torch.int32).long()
        mixed = (bits * 2654435761 & 0xFFFFFFFF) >> 8
        held = mixed < self.held_out * 2**24
        return torch.nn.functional.pad(held, (0, 1))[batch.layout.dialogue]

    def blend(self, before: Tensor, now: Tensor) -> Tensor:
        """Return the weights `[heads]` from two tables of losses, `[trained on | held out, heads]`."""
        change = now - before
        overfitting = (change[1] - change[0]).abs().clamp(min=1e-2)
        value = (change[1] / overfitting**2).abs()
        total = value.sum()
        equal = torch.full_like(value, 1 / len(value))
        return torch.where(total > 0, value / total.clamp(min=torch.finfo(value.dtype).tiny), equal)

    @torch.no_grad()
    def on_epoch_start(self, epoch: int, collect: Callable[[int], list[tuple[Features, Tensor]]]) -> None:
        """Take the losses of the epoch before, and estimate the weights when it is time."""
        super().on_epoch_start(epoch, collect)
        if epoch == 1 and not bool((self.counts > 0).all()):
            raise MerZooError(
                f"no labelled dialogue, or every one, fell to the share of {self.held_out} that is held out. "
                "Change `held_out`, or use more dialogues."
            )
        done = epoch - 1
        if done >= 0 and done % self.interval == 0:
            now = self.sums / self.counts.clamp(min=1)
            if done > 0:
                self.weights.copy_(self.blend(self.reference, now))
            self.reference.copy_(now)
        self.sums.zero_()
        self.counts.zero_()

    def on_features(self, model: Balanced, flow: Flow) -> Flow:
        """Note which utterances are held out."""
        held = self.is_held_out(flow.batch)
        return flow.with_states(flow.states, held_out_labels=torch.where(held, flow.batch.labels, -1), held_out=held)

    def on_labels(self, labels: Tensor, output: Output) -> Tensor:
        """Hide the labels of the held-out dialogues from the loss."""
        return labels.masked_fill(output.notes["held_out"], -1)

    def total_loss(self, loss: Tensor, output: Output, labels: Tensor) -> Tensor:
        """Blend the losses."""
        trained = modality_losses(output, labels, self.modalities)
        with torch.no_grad():
            for row, seen in enumerate((labels, output.notes["held_out_labels"])):
                each = [*modality_losses(output, seen, self.modalities).values()]
                each.append(negative_log_likelihood(output.logits, seen))
                count = (seen >= 0).sum()
                self.sums[row] += torch.stack(each) * count
                self.counts[row] += count
        return (self.weights * torch.stack([*trained.values(), loss])).sum()

    def rates(self, output: Output) -> dict[str, Tensor]:
        """Weight of every modality's loss, and of the fused one."""
        return dict(zip((*self.modalities, FUSED), self.weights.unbind(), strict=True))
