"""What a balancing strategy may do, and when: hooks on the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from mer_zoo.errors import MerZooError

if TYPE_CHECKING:
    from typing_extensions import Self

    from mer_zoo.batch.output import Output
    from mer_zoo.corpus import ConversationBatch

Features = dict[str, Tensor]
"""Modality -> `[N, width]`."""


class Flow(Protocol):
    """What a strategy sees of a batch on its way through a model.

    Attributes:
        batch: the utterances.
        states: the features, modality -> `[N, width]`.
    """

    batch: ConversationBatch
    states: Features

    def with_states(self, states: Features, **notes: Tensor) -> Self:
        """Return the flow with other features, and with notes for later hooks, which find them in `output.notes`."""
        ...


class Balanced(Protocol):
    """What a strategy sees of a model."""

    def encode(self, batch: ConversationBatch) -> Flow:
        """Return the features of a batch."""
        ...

    def decide(self, flow: Flow) -> Output:
        """Judge features."""
        ...

    def unimodal(self, flow: Flow) -> Features:
        """Return the logits `[N, classes]` that each modality would decide by alone."""
        ...

    def __call__(self, batch: ConversationBatch) -> Output:
        """Encode and decide."""
        ...


class Balancing(nn.Module):
    """Base of all balancing strategies: does nothing. Hooks run in training only, in this order.

    1. `on_epoch_start` 2. `forward`, and within it `on_features` 3. `on_labels` 4. `total_loss` 5. `backward`
    6. `after_backward`; `rates` is read at the end of an epoch.

    *Features* are the states of each modality where the model begins to mix or to judge them (before its first fusion
    or head), `[N, width]`. Every hook is made of tensor operations: no value is read back to the host within an epoch.
    What `on_features` finds out and later hooks need goes with the flow, as notes: `flow.with_states(x, rates=...)`,
    then `output.notes["rates"]`. So one strategy can balance several seeds in one program.

    A strategy that would modulate nothing raises: here with too few modalities, in `own` where a modality has no
    parameters of its own.

    Args:
        modalities: names of the modalities (a fact).
        classes: number of emotions (a fact).

    Raises:
        MerZooError: fewer modalities than `fewest`.
    """

    fewest = 2
    """Modalities below which the strategy has nothing to do."""

    def __init__(self, modalities: Sequence[str], classes: int) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        if len(self.modalities) < self.fewest:
            raise MerZooError("one modality alone cannot be balanced. Use `balancing: none`.")
        self.classes = classes
        self.epoch = 0

    @property
    def stackable(self) -> bool:
        """Whether several seeds can be balanced in one program: no hook but those on tensors of one seed is used."""
        others = ("on_epoch_start", "forward", "total_loss", "backward", "after_backward")
        return all(getattr(type(self), hook) is getattr(Balancing, hook) for hook in others)

    def on_epoch_start(self, epoch: int, collect: Callable[[int], list[tuple[Features, Tensor]]]) -> None:
        """Begin an epoch.

        Args:
            epoch: number of the epoch, from 0.
            collect: gives features and labels of the first so many training batches, without gradient.
        """
        self.epoch = epoch

    def forward(self, model: Balanced, batch: ConversationBatch) -> Output:
        """Run the model on a batch: once, or on changed inputs, or several times."""
        return model.decide(self.on_features(model, model.encode(batch)))

    def on_features(self, model: Balanced, flow: Flow) -> Flow:
        """Change the features.

        Args:
            model: gives the logits that each modality would decide by alone, `model.unimodal(flow)`.
            flow: features and batch.
        """
        return flow

    def on_labels(self, labels: Tensor, output: Output) -> Tensor:
        """Choose which utterances of the step are judged: -1 leaves one out of the loss. `[N]` -> `[N]`."""
        return labels

    def total_loss(self, loss: Tensor, output: Output, labels: Tensor) -> Tensor:
        """Add to the loss; `labels` are those that `on_labels` returned, here and in `backward`."""
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

    def own(
        self, parameters: Mapping[str, Sequence[nn.Parameter]], dimensions: int = 0
    ) -> dict[str, list[nn.Parameter]]:
        """Return the trained parameters of each modality that have at least so many dimensions.

        Raises:
            MerZooError: a modality has none, so that nothing of it could be modulated.
        """
        chosen = {
            m: [p for p in parameters.get(m, ()) if p.requires_grad and p.dim() >= dimensions] for m in self.modalities
        }
        idle = [m for m, found in chosen.items() if not found]
        if idle:
            raise MerZooError(
                f"nothing to balance: the model has no parameters that belong to {' or to '.join(idle)} alone. Put an "
                "encoder per modality before the first fusion or head, or use `balancing: none`."
            )
        return chosen

    def rates(self, output: Output) -> dict[str, Tensor]:
        """Return what was modulated by how much in the step that gave this output: `modality` -> scalar."""
        return {}
