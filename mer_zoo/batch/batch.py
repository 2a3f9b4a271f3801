"""Several dialogues end to end, as a model sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from mer_zoo.graph.lowering import ViewSpec
    from mer_zoo.kernel.base import Kernel
from mer_zoo.batch.index import Layout


@dataclass
class ConversationBatch:
    """Several dialogues end to end: one row per utterance, no padding.

    With N utterances. To fix the shape of a batch, rows may be added at its end that belong to no dialogue: unlabelled,
    without edges, seen by no one.

    Attributes:
        features: modality -> float32 `[N, width]`; zeros where the modality is absent.
        present: modality -> bool `[N]`.
        labels: int64 `[N]`; -1 where unlabelled.
        layout: who speaks where.
        views: edges that the stages of a model see, by view.
    """

    features: dict[str, Tensor]
    present: dict[str, Tensor]
    labels: Tensor
    layout: Layout
    views: dict[ViewSpec, Kernel] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.labels.shape[0]
