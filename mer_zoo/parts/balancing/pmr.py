"""Prototypical modality rebalance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mer_zoo.errors import MerZooError
from mer_zoo.parts.balancing.base import Balancing, Features
from mer_zoo.parts.balancing.unimodal import confidence, is_class
from mer_zoo.parts.loss.nll import negative_log_likelihood

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class PMR(Balancing):
    r"""Pull the features of modalities that lag behind towards the mean of their class (PMR; Fan et al. 2023).

    With $p_{mc}$ the mean feature of class c and modality m, its prototype:
    $$d_{mc}(x) = -\lVert x - p_{mc} \rVert,\qquad s_m = \sum_i \mathrm{softmax}(d_m(x_i))_{y_i},\qquad
      L' = L + \alpha \sum_{m:\,s_m < \max_n s_n} \mathrm{CE}(d_m, y)$$
    Prototypes are taken anew at the start of each epoch; from the third on,
    $p \leftarrow (1-\mu)\,p_{\text{new}} + \mu\,p$. This is the published script, without the graded coefficients and
    the entropy term of the paper. Of two modalities it supports the lagging one; of more, all but the best are.

    A class that no utterance of the sample has keeps its prototype; before it has any, its utterances are left out.

    Inputs:
        output: `Output` with features; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        modalities, classes: facts.
        alpha: strength, above 0.
        momentum: $\mu$, weight of the old prototypes, 0 to 1.
        batches: training batches that the prototypes are taken from; published: a tenth of all, at least one.
        epochs: balance in the first so many epochs only; null: in all. Published: 51.

    Raises:
        MerZooError: fewer than two modalities, `alpha` not above 0, or a modality without parameters of its own.

    Example:
        >>> part = PMR(("text", "audio"), 2)
        >>> sample = [({"text": torch.eye(2), "audio": torch.eye(2)}, torch.tensor([0, 1]))]
        >>> part.on_epoch_start(0, lambda count: sample)
        >>> part.prototypes["text"]
        tensor([[1., 0.],
                [0., 1.]])
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: int,
        *,
        alpha: float = 1.0,
        momentum: float = 0.2,
        batches: int = 2,
        epochs: int | None = None,
    ) -> None:
        super().__init__(modalities, classes)
        if alpha <= 0:
            raise MerZooError(f"`alpha` is {alpha}, which adds nothing. Choose one above 0, or `balancing: none`.")
        self.alpha, self.momentum, self.batches, self.epochs = alpha, momentum, batches, epochs
        self.prototypes: Features = {}
        self.known: Tensor
        self.register_buffer("known", torch.zeros(classes, dtype=torch.bool), persistent=False)
        self._strengths: Tensor
        self.register_buffer("_strengths", torch.zeros(len(self.modalities)), persistent=False)

    @property
    def _idle(self) -> bool:
        return self.epochs is not None and self.epoch >= self.epochs

    @torch.no_grad()
    def on_epoch_start(self, epoch: int, collect: Callable[[int], list[tuple[Features, Tensor]]]) -> None:
        """Take the prototypes."""
        super().on_epoch_start(epoch, collect)
        if self._idle:
            self._strengths = torch.zeros_like(self._strengths)
            return
        sample = collect(self.batches)
        truth = torch.cat([is_class(labels, self.classes) for _, labels in sample])
        count = truth.sum(0)
        weight_of_old = self.momentum * self.known if epoch > 1 else torch.zeros_like(self.known, dtype=torch.float32)
        weight_of_old = torch.where(count > 0, weight_of_old, 1.0).unsqueeze(-1)
        for m in self.modalities:
            x = torch.cat([features[m] for features, _ in sample]).float()
            new = truth.to(x.dtype).mT @ x / count.clamp(min=1).unsqueeze(-1)
            # In place once they are there: a captured step reads them where they were.
            old = self.prototypes.setdefault(m, torch.zeros_like(new))
            old.copy_(torch.lerp(new, old, weight_of_old))
        self.known |= count > 0

    def similarity(self, m: str, x: Tensor) -> Tensor:
        """Return minus the distance of features `[N, width]` to the prototypes of a modality, `[N, classes]`."""
        distance = torch.cdist(x.float(), self.prototypes[m], compute_mode="donot_use_mm_for_euclid_dist")
        return (-distance).masked_fill(~self.known, torch.finfo(distance.dtype).min)

    def total_loss(self, loss: Tensor, output: Output, labels: Tensor) -> Tensor:
        """Add the prototypes' cross entropy for all modalities but the best."""
        if self._idle:
            return loss
        has_prototype = (is_class(labels, self.classes) & self.known).any(-1)
        labels = torch.where(has_prototype, labels, -1)
        near = [self.similarity(m, output.features[m]) for m in self.modalities]
        scores = torch.stack([confidence(d.detach(), labels) for d in near])
        self._strengths = self.alpha * (scores < scores.max())
        extra = torch.stack([negative_log_likelihood(d, labels) for d in near])
        return loss + (self._strengths * extra).sum()

    def after_backward(self, parameters: Mapping[str, Sequence[nn.Parameter]]) -> None:
        """Make sure that there was something to support."""
        self.own(parameters)

    def rates(self, output: Output) -> dict[str, Tensor]:
        """Weight of every modality's prototype loss in the last step."""
        return dict(zip(self.modalities, self._strengths.unbind(), strict=True))
