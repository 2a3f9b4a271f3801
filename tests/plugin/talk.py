"""Made-up dialogues in which moods last."""

from __future__ import annotations

import numpy as np

from mer_zoo.data.conversation import Conversation, Dataset


def talk(*, dialogues: int = 24, seed: int = 0) -> Dataset:
    """Dialogues of two speakers whose moods last a while; the label column `mood` is the emotion once more.

    Outputs:
        `Dataset` of two modalities and three emotions.

    Args:
        dialogues: how many.
        seed: decides everything random.
    """
    draw = np.random.default_rng(seed)
    made = []
    for number in range(dialogues):
        count = int(draw.integers(6, 12))
        moods = np.repeat(draw.integers(3, size=count), draw.integers(1, 4, size=count))[:count]
        features = {m: np.eye(3, 6)[moods] + draw.normal(scale=0.8, size=(count, 6)) for m in ("text", "audio")}
        speakers = tuple("AB"[turn % 2] for turn in range(count))
        made.append(Conversation(f"talk {number}", speakers, moods, features, targets={"mood": moods}))
    names = [dialogue.id for dialogue in made]
    test, validation = names[: dialogues // 4], names[dialogues // 4 : dialogues // 2]
    splits = {"train": names[dialogues // 2 :], "validation": validation, "test": test}
    provenance = dict.fromkeys(("text", "audio"), "drawn at random around one point per emotion")
    return Dataset("talk", tuple(made), ("sad", "calm", "glad"), splits, provenance=provenance)
