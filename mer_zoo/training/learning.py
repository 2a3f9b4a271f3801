"""Learners: fitted as a whole, without gradient descent and without epochs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from mer_zoo import registry
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.model.plan import PartChoice
from mer_zoo.parts.learner.base import Learner
from mer_zoo.results.identity import Protocol
from mer_zoo.results.metrics import confusion_matrix, score_confusion
from mer_zoo.training import memory
from mer_zoo.training.describing import described, predictions_of
from mer_zoo.training.loop import Outcome
from mer_zoo.training.task import Task


def learn(task: Task, seed: int, *, protocol: Protocol = "validation") -> Outcome:
    """Fit a plan's learner and judge the test split; there is no epoch to choose, so both protocols agree.

    Args:
        task: plan and dialogues.
        seed: decides what is random.
        protocol: written into the result.

    Raises:
        MerZooError: the learner refuses the data, or the plan has none.
    """
    part = task.plan.learner
    if part is None:
        raise MerZooError(f"{task.name}: the recipe has no learner. Train it.")
    memory.forget_peak(task.device)
    started = time.perf_counter()
    names = task.dataset.label_names
    train, validation = task.dialogues(task.split.train), task.dialogues(task.split.validation)
    learner = made(part).fit(train, validation, names, seed=seed)
    seconds = time.perf_counter() - started
    test = task.dialogues(task.split.test)
    judged = {dialogue.id: learner.predict_proba(dialogue) for dialogue in test}
    scores = {
        "validation": _scores(validation, {d.id: learner.predict_proba(d) for d in validation}, names),
        "test": _scores(test, judged, names),
    }
    result = described(
        task,
        seed,
        protocol,
        "float32",
        chosen_epoch=0,
        epochs_run=0,
        metrics=scores,
        oracle_metrics=scores["test"] if protocol == "test-oracle" else None,
        history=[],
        predictions={dialogue.id: predictions_of(dialogue, judged[dialogue.id]) for dialogue in test},
        parameters=0,
        seconds={"total": time.perf_counter() - started, "first_epoch": seconds, "per_epoch": seconds},
    )
    return Outcome(None, result, task.normaliser)


def made(part: PartChoice) -> Learner:
    """Return the learner of a plan, not yet fitted.

    Raises:
        MerZooError: it refuses its settings, or is no learner.
    """
    learner = registry.build(registry.find("learner", part.name, "learner"), part.settings, {}, "learner")
    if not isinstance(learner, Learner):
        raise MerZooError(f"learner: {part.name} makes a {type(learner).__name__}, not a Learner.")
    return learner


def _scores(dialogues: Sequence[Conversation], judged: dict[str, np.ndarray], names: Sequence[str]) -> dict:
    """Scores of the most probable classes over labelled utterances."""
    counted = [confusion_matrix(d.labels, judged[d.id].argmax(-1), len(names)) for d in dialogues]
    return score_confusion(np.sum(counted, axis=0), names)
