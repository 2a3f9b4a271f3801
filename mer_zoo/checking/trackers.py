"""The contract of trackers: any run can be logged, and nothing else changes. Made-up runs are logged for it."""

from __future__ import annotations

import inspect
import os
import random
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mer_zoo.checking.part import Checks, Part, Verdict
from mer_zoo.results.result import SUFFIX
from mer_zoo.results.run import Run

FINISHED = Run(
    id="00000000000000f1",
    name="BiLSTM on talk, seed 0",
    settings={"model": "BiLSTM", "recipe.training.epochs": 2, "recipe.loss.weights": None, "deterministic": True},
    epochs={0: {"train_loss": 1.5, "rates/text": 0.25}, 1: {"train_loss": 0.5, "rates/text": 0.5}},
    chosen_epoch=1,
    measures={"validation/weighted_f1": 0.75, "test/weighted_f1": 0.5, "cost/parameters": 5e4},
    seconds=3.5,
    finished=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
)
RUNS: dict[str, tuple[Run, ...]] = {
    "a finished run": (FINISHED,),
    "a broken run": (
        Run("00000000000000f2", FINISHED.name, FINISHED.settings, failure="loss is NaN.\nLower the rate."),
    ),
    "a run without epochs": (Run("00000000000000f3", "Majority", {}, chosen_epoch=0, finished=FINISHED.finished),),
    "a trial of a search": (
        replace(
            FINISHED,
            id="00000000000000f6",
            name="BiLSTM on talk, trial 3",
            settings={**FINISHED.settings, "search": "f00d", "trial": 3, "state": "complete"},
            chosen_epoch=None,
            measures={"validation/weighted_f1": 0.75},
        ),
    ),
    "a broken run, made again": (
        Run(FINISHED.id, FINISHED.name, FINISHED.settings, failure="no memory left."),
        FINISHED,
        replace(FINISHED, measures={"test/weighted_f1": 0.25}),
    ),
    "odd names": (
        replace(
            FINISHED,
            id="00000000000000f4",
            name='../Modèle: "a/b" <c> | 情感 %s {} ' + 40 * "long ",
            settings={"recipe.model.text<audio.x": "../y", "s" * 300: "t" * 9000, "..": "", "": "[1, null]"},
            epochs={7: {"rates/text<audio": -1e300, "validation_./mine.py:score": 0.5}},
            measures={"test/./mine.py:kappa": 0.0, "test/" + "m" * 300: 1.0},
        ),
    ),
    "many numbers": (
        replace(
            FINISHED,
            id="00000000000000f5",
            settings={f"recipe.{number}": number for number in range(250)},
            epochs={step: {f"rates/{number}": step / 7 for number in range(12)} for step in range(150)},
        ),
    ),
}
"""What has to be logged, in order, by a name for each."""


def checks(part: Part) -> Checks:
    """Return the suite of trackers."""
    found: Checks = {"construction": lambda: _construction(part)}
    return (
        found
        | {name: partial(_logs, part, name) for name in RUNS}
        | part.setting_checks({}, lambda changed: _logs(part, "a finished run", changed) or True, 1)
    )


def _construction(part: Part) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        log = getattr(part.build({"results": folder}), "log", None)
    if not callable(log) or len(inspect.signature(log).parameters) != 1:
        return "a tracker has a method `log(run)`."
    return None


def _logs(part: Part, name: str, settings: Mapping[str, Any] | None = None) -> Verdict:
    """Runs are logged by a new tracker each, as by commands one after the other, and leave all else as it was."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        folder = Path(home, "runs")
        folder.mkdir()
        result, weights = folder / f"mine{SUFFIX}", folder / "mine.safetensors"
        contents = {result: b'{"mine": 1}', weights: bytes(1000)}
        for path, content in contents.items():
            path.write_bytes(content)
        for run in RUNS[name]:
            files = {} if run.failure else {"result.json": result, "model.safetensors": weights}
            given = replace(run, files=files)
            tracker = part.build({"results": str(folder)}, **(settings or {}))
            before = _surroundings()
            tracker.log(given)
            if changed := [what for what, value in _surroundings().items() if value != before[what]]:
                return f"`log` changes {', '.join(changed)}. Leave that as it is: training goes on in the same process."
            if given != replace(run, files=files):
                return "`log` changes the run that it is given."
        if any(not path.is_file() or path.read_bytes() != content for path, content in contents.items()):
            return "`log` changes the files of the run."
        if strange := sorted(path.relative_to(folder) for path in {*folder.rglob(f"*{SUFFIX}")} - {result}):
            return f"`log` leaves {strange[0]}, which would be taken for a result. Name copies as `run.files` does."
    return None


def _surroundings() -> dict[str, Any]:
    return {
        "the state of `random`": random.getstate(),
        "the state of NumPy's generator": str(np.random.get_state()),
        "the state of torch's generator": torch.get_rng_state().tolist(),
        "whether torch keeps gradients": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's threads": torch.get_num_threads(),
        "the working directory": os.getcwd(),
        "`sys.excepthook`": sys.excepthook,
        "standard output": (sys.stdout, sys.stderr),
    }
