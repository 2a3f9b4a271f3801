"""Adaptive gradient modulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mer_zoo.errors import MerZooError
from mer_zoo.parts.balancing.base import Balanced, Balancing

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output
    from mer_zoo.corpus import ConversationBatch

MOST = 4


class AGM(Balancing):
    r"""Split the logits into what each modality contributes and scale its gradient (AGM; Li et al. 2023).

    With $F(S)$ the logits when only the modalities S are shown (the others' inputs zero), M modalities:
    $$\phi_m = \sum_{S \not\ni m} \frac{|S|!\,(M-|S|-1)!}{M!} \big(F(S \cup m) - [S \ne \emptyset]\,F(S)\big),\qquad
      \sum_m \phi_m = F(\text{all})$$
    $s_m$ the cross entropy of $\phi_m$, $\bar s_m$ that of the other modalities on average, $\tau$ the means of $s$
    over all steps before:
    $$r_m = \exp(\bar s_m - s_m),\quad r^*_m = \exp(\bar\tau_m - \tau_m),\quad
      c_m = \exp\big(\alpha \min(r^*_m - r_m, 7)\big)$$
    The gradient that flows into $\phi_m$ is multiplied by $c_m$. With two and three modalities these are the published
    forms, but for two guards of which each published form has one: the 7, and probabilities of at least 1e-8 in $s$.
    A step costs $2^M - 1$ forward passes, all in training mode (published: the partial ones without dropout).

    Inputs:
        model; batch.
    Outputs:
        `Output` of equal logits.

    Args:
        modalities, classes: facts.
        alpha: strength, above 0.

    Raises:
        MerZooError: fewer than two modalities, more than four, or `alpha` not above 0.

    Example:
        >>> part = AGM(("text", "audio"), 6, alpha=1.0)
        >>> part.coefficients(torch.tensor([1.0, 1.0])).round(decimals=3)
        tensor([1., 1.])
    """

    def __init__(self, modalities: Sequence[str], classes: int, *, alpha: float = 1.0) -> None:
        super().__init__(modalities, classes)
        count = len(self.modalities)
        if count > MOST:
            raise MerZooError(
                f"{count} modalities would take {2**count - 1} forward passes per step; at most {MOST} are allowed. "
                "Use `balancing: ogm_ge`."
            )
        if alpha <= 0:
            raise MerZooError(f"`alpha` is {alpha}, which changes nothing. Choose one above 0, or `balancing: none`.")
        self.alpha = alpha
        self.steps: Tensor
        self.running: Tensor
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("running", torch.zeros(count))
        self._coefficients: Tensor
        self.register_buffer("_coefficients", torch.ones(count), persistent=False)

    def contributions(self, shown: dict[frozenset[str], Tensor]) -> Tensor:
        """Return the share of every modality in the logits, `[modalities, N, classes]`, from `F(S)` for every S."""
        count = len(self.modalities)
        shares = []
        for m in self.modalities:
            share = torch.zeros_like(next(iter(shown.values())))
            for subset in _subsets(self.modalities):
                if m in subset:
                    without = subset - {m}
                    weight = math.factorial(len(without)) * math.factorial(count - len(subset)) / math.factorial(count)
                    share = share + weight * (shown[subset] - shown[without] if without else shown[subset])
            shares.append(share)
        return torch.stack(shares)

    def coefficients(self, scores: Tensor) -> Tensor:
        """Return the factor on every modality's gradient from its cross entropy, both `[modalities]`."""
        return torch.exp(self.alpha * (_lead(self.running) - _lead(scores)).clamp(max=7))

    def forward(self, model: Balanced, batch: ConversationBatch) -> Output:
        """Run the model on every subset of the modalities and put the logits together again."""
        outputs = {subset: model(_show(batch, subset)) for subset in _subsets(self.modalities)}
        whole = outputs[frozenset(self.modalities)]
        shares = self.contributions({subset: output.logits for subset, output in outputs.items()})
        with torch.no_grad():
            scores, any_label = _cross_entropies(shares.detach(), batch.labels)
            self._coefficients = torch.where(any_label, self.coefficients(scores), 1.0)
            self.steps += any_label
            self.running += torch.where(any_label, (scores - self.running) / self.steps.clamp(min=1), 0.0)
        scale = self._coefficients.to(shares.dtype)[:, None, None]
        return replace(whole, logits=(shares.detach() + scale * (shares - shares.detach())).sum(0))

    def rates(self, output: Output) -> dict[str, Tensor]:
        """Factors on the gradients in the last step."""
        return dict(zip(self.modalities, self._coefficients.unbind(), strict=True))


def _subsets(modalities: Sequence[str]) -> list[frozenset[str]]:
    """All subsets but the empty one, the largest first."""
    sizes = range(len(modalities), 0, -1)
    return [frozenset(chosen) for size in sizes for chosen in combinations(modalities, size)]


def _show(batch: ConversationBatch, subset: frozenset[str]) -> ConversationBatch:
    return replace(batch, features={m: x if m in subset else torch.zeros_like(x) for m, x in batch.features.items()})


def _cross_entropies(shares: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of every modality over labelled utterances, and whether there is any."""
    known = (labels >= 0).to(shares.dtype)
    picked = labels.clamp(min=0).expand(len(shares), -1).unsqueeze(-1)
    each = -shares.log_softmax(-1).gather(-1, picked).squeeze(-1).clamp(min=math.log(1e-8))
    return (each * known).sum(-1) / known.sum().clamp(min=1), known.any()


def _lead(scores: Tensor) -> Tensor:
    """How far every modality's cross entropy lies below the mean of the others', exponentiated."""
    count = len(scores)
    return torch.exp(count / (count - 1) * (scores.mean() - scores))
