"""What a balancing strategy may do, and when: hooks on the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from mer_zoo.data.batch import ConversationBatch
    from mer_zoo.model import Output

Features = dict[str, Tensor]


class Balancing(nn.Module):
    """Base of all balancing strategies: does nothing. Hooks run in training only, in this order.

    1. `on_epoch_start` 2. `forward`, and within it `on_features` 3. `total_loss` 4. `backward` 5. `after_backward`;
    `rates` is read at the end of an epoch.

    *Features* are the states of each modality where the model begins to mix or to judge them (before its first fusion
    or head), `[N, width]`. Every hook is made of tensor operations: no value is read back to the host.

    Arguments:
        modalities: names of the modalities (a fact).
        classes: number of emotions (a fact).
    """

    def __init__(self, modalities: Sequence[str], classes: int) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.classes = classes
        self.epoch = 0

    def on_epoch_start(self, epoch: int, collect: Callable[[int], list[tuple[Features, Tensor]]]) -> None:
        """Begin an epoch.

        Args:
            epoch: number of the epoch, from 0.
            collect: gives features and labels of the first so many training batches, without gradient.
        """
        self.epoch = epoch

    def forward(self, run: Callable[[ConversationBatch], Output], batch: ConversationBatch) -> Output:
        """Run the model on a batch: once, or on changed inputs, or several times."""
        return run(batch)

    def on_features(self, features: Features, batch: ConversationBatch, unimodal: Callable[[], Features]) -> Features:
        """Change the features.

        Args:
            features: modality -> `[N, width]`.
            batch: the batch they come from.
            unimodal: gives the logits `[N, classes]` that each modality would decide by alone.
        """
        return features

    def total_loss(self, loss: Tensor, output: Output, labels: Tensor) -> Tensor:
        """Add to the loss."""
        return loss

    def backward(
        self,
        loss: Tensor,
        output: Output,
        labels: Tensor,
        parameters: Mapping[str, Sequence[nn.Parameter]],
    ) -> None:
        """Compute the gradients; `parameters` are those that belong to one modality, by modality."""
        loss.backward()

    def after_backward(self, parameters: Mapping[str, Sequence[nn.Parameter]]) -> None:
        """Change the gradients of the parameters that belong to one modality."""

    def rates(self) -> dict[str, Tensor]:
        """Return what was modulated by how much in the last step: `modality` -> scalar."""
        return {}
