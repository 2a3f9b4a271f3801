"""Modality dropout at a fixed rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mer_zoo.errors import MerZooError, nearest
from mer_zoo.parts.balancing.base import Balanced, Balancing, Flow
from mer_zoo.parts.balancing.dropping import drop_modalities

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class ModalityDropout(Balancing):
    r"""Drop whole dialogues of a modality at a fixed rate (ModDrop; Neverova et al. 2016).

    $$y_m = \frac{b_{dm}}{1 - \bar q}\,x_m,\qquad b_{dm} \sim \mathrm{Bernoulli}(1 - q_m)$$
    for dialogue d and modality m; $\bar q$ is the mean of q.

    Inputs:
        features: modality -> `[N, width]`; batch: its dialogues.
    Outputs:
        features of the same shapes.

    Args:
        modalities, classes: facts.
        rate: $q$, from 0 to below 1; one for all, or modality -> rate (0 for those not named).

    Raises:
        MerZooError: fewer than two modalities, a rate out of range or zero everywhere, an unknown modality.

    Example:
        >>> ModalityDropout(("text", "audio"), 6, rate={"text": 0.5}).rate
        {'text': 0.5, 'audio': 0.0}
    """

    def __init__(self, modalities: Sequence[str], classes: int, *, rate: float | dict[str, float] = 0.2) -> None:
        super().__init__(modalities, classes)
        given = rate if isinstance(rate, dict) else dict.fromkeys(self.modalities, rate)
        for m in given:
            if m not in self.modalities:
                raise MerZooError(f"`rate`: no modality named '{m}'.{nearest(m, self.modalities)}")
        chosen = [given.get(m, 0.0) for m in self.modalities]
        if not all(0 <= q < 1 for q in chosen) or not any(chosen):
            raise MerZooError(
                f"`rate` is {rate}, but must lie from 0 to below 1, above 0 for a modality at least. "
                "To drop nothing, use `balancing: none`."
            )
        self.rate = dict(zip(self.modalities, chosen, strict=True))
        self._rates: Tensor
        self.register_buffer("_rates", torch.tensor(chosen), persistent=False)

    def on_features(self, model: Balanced, flow: Flow) -> Flow:
        """Drop modalities of whole dialogues."""
        features = {m: flow.states[m] for m in self.modalities}
        return flow.with_states(drop_modalities(features, self._rates, flow.batch.layout))

    def rates(self, output: Output) -> dict[str, Tensor]:
        """Dropout probabilities."""
        return dict(zip(self.modalities, self._rates.unbind(), strict=True))
