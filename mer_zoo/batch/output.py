"""What a model returns of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

UTTERANCE = "utterance"
States = dict[str, Tensor]


@dataclass
class Output:
    """What a model says of a batch of N utterances.

    Attributes:
        logits: float `[N, classes]`.
        modality_logits: modality -> `[N, classes]`, where the model has one head per modality; else empty.
        features: modality -> `[N, width]`, the states that were judged or mixed, after balancing.
        notes: what a balancing strategy noted on the way, for its later hooks.
        tasks: name of a head beside the emotion's -> its logits `[..., classes]` and what they should be, int64
            `[...]`, -1 where there is nothing to judge.
        judged: float `[N, width]`, the fused states that became the logits; None where each modality has its own head.
    """

    logits: Tensor
    modality_logits: States
    features: States
    notes: States = field(default_factory=dict)
    tasks: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    judged: Tensor | None = None
