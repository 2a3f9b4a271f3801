"""What was run, as the result file says it: the same for models and learners."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.results.identity import Precision, Protocol
from mer_zoo.results.result import Environment, Result
from mer_zoo.training import memory
from mer_zoo.training.task import Task, identity


def described(task: Task, seed: int, protocol: Protocol, precision: Precision, **came_out: Any) -> Result:
    """Return the result of a run.

    Args:
        task: plan and dialogues.
        seed, protocol, precision: of the run.
        came_out: the other fields of `Result`: scores, predictions, times and the like.
    """
    data = task.dataset
    what = identity(
        task.plan, data.fingerprint, task.split_rule, seed=seed, fold=task.fold, protocol=protocol, precision=precision
    )
    return Result.model_validate(
        {
            "run": what.run,
            "recipe_name": task.name,
            "recipe": what.recipe,
            "dataset": {
                "name": data.name,
                "fingerprint": data.fingerprint,
                "warnings": [*data.warnings, *_warnings(task)],
                "ceilings": dict(data.ceilings) if task.split.test == tuple(data.splits.get("test", ())) else {},
                "label_names": data.label_names,
                "modalities": data.widths,
            },
            "seed": seed,
            "fold": task.fold,
            "protocol": protocol,
            "split_rule": what.split,
            "precision": precision,
            "versions": what.versions,
            "split": task.split._asdict(),
            "peak_memory_mb": memory.peak(task.device),
            "environment": Environment.here(task.device),
            "finished": datetime.datetime.now(datetime.timezone.utc),
            **came_out,
        }
    )


def predictions_of(dialogue: Conversation, probability: np.ndarray) -> dict[str, Any]:
    """Return labels, predicted classes and probabilities `[utterances, classes]` of a dialogue, as result files do."""
    return {
        "label": dialogue.labels.tolist(),
        "predicted": probability.argmax(-1).tolist(),
        "probability": probability.tolist(),
    }


def _warnings(task: Task) -> list[str]:
    ahead = [modality for modality, way in task.plan.normalise.items() if way == "speaker"]
    if not ahead:
        return []
    return [
        f"{', '.join(ahead)}: normalised by each speaker's whole dialogue, so later turns are seen. Scores hold for "
        "dialogues that are complete when they are judged."
    ]
