"""Fabricates results for the tests of `mer_zoo.comparison`."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from mer_zoo.results.identity import COMPUTES, Identity
from mer_zoo.results.metrics import score
from mer_zoo.results.result import Environment, Result, Seconds

NAMES = ("happy", "sad", "neutral", "angry", "excited", "frustrated")


def fabricate(
    model: str = "amb_dsgdn",
    *,
    dataset: str = "iemocap",
    seed: int = 0,
    fold: int | None = None,
    folds: int = 1,
    skill: float = 0.6,
    protocol: str = "validation",
    names: tuple[str, ...] = NAMES,
    dialogues: int = 20,
    ceiling: float | None = None,
    warnings: tuple[str, ...] = (),
    rates: bool = False,
    oracle: bool | None = None,
    epochs: int = 30,
    seconds: float = 1.0,
    recipe: dict | None = None,
) -> Result:
    """A result whose predictions are right with probability `skill`; its dialogues do not depend on the seed."""
    data = np.random.default_rng([len(names), dialogues])
    labels = {}
    for i in range(dialogues):
        count = int(data.integers(5, 30))
        labels[f"{dataset}_{i}"] = np.where(data.random(count) < 0.05, -1, data.integers(0, len(names), count))
    ids = list(labels)
    test = ids[(fold or 0) :: folds]
    random = np.random.default_rng([seed, fold or 0, *model.encode()])
    predictions = {}
    for key in test:
        label = labels[key]
        guess = np.where(random.random(len(label)) < skill, label, random.integers(0, len(names), len(label)))
        predicted = np.maximum(guess, 0)
        probability = np.full((len(label), len(names)), 0.3 / len(names))
        probability[np.arange(len(label)), predicted] += 0.7
        predictions[key] = {
            "label": label.tolist(),
            "predicted": predicted.tolist(),
            "probability": probability.tolist(),
        }
    flat = [np.concatenate([predictions[key][what] for key in test]) for what in ("label", "predicted")]
    scores = score(*flat, names)
    better = flat[1].copy()
    better[:20] = np.maximum(flat[0][:20], 0)
    history: list[dict] = []
    for epoch in range(1, epochs + 1):
        rise = 1 - np.exp(-epoch / 6)
        entry: dict = {
            "epoch": epoch,
            "train_loss": float(1.8 - 1.2 * rise + 0.03 * random.standard_normal()),
            "validation_loss": float(1.8 - 0.8 * rise + 0.01 * epoch + 0.05 * random.standard_normal()),
            "validation_weighted_f1": float(skill * rise + 0.01 * random.standard_normal()),
        }
        if rates:
            entry["rates"] = {"text": 0.3 + 0.3 * rise, "audio": 0.3 - 0.1 * rise, "visual": 0.3 - 0.2 * rise}
        history.append(entry)
    filled = recipe or {"title": model, "train": {"lr": 1e-4, "epochs": epochs}}
    return Result(
        run=Identity(recipe=filled, data=f"print-{dataset}", seed=seed, fold=fold, protocol=protocol).run,
        versions={"mer_zoo": COMPUTES},
        recipe_name=model,
        recipe=filled,
        dataset={
            "name": dataset,
            "fingerprint": f"print-{dataset}",
            "warnings": list(warnings),
            "ceilings": {} if ceiling is None else {"full": ceiling},
            "label_names": list(names),
            "modalities": {"text": 1024, "audio": 1582, "visual": 342},
        },
        seed=seed,
        fold=fold,
        protocol=protocol,
        split={"train": [f"{dataset}_train{fold}"], "validation": [f"{dataset}_validation"], "test": test},
        chosen_epoch=epochs * 2 // 3,
        epochs_run=epochs,
        metrics={"validation": scores, "test": scores},
        oracle_metrics=score(flat[0], better, names)
        if (protocol == "test-oracle" if oracle is None else oracle)
        else None,
        history=history,
        predictions=predictions,
        parameters=13_133_234,
        seconds=Seconds(total=seconds * epochs, first_epoch=2 * seconds, per_epoch=seconds),
        peak_memory_mb=512.0,
        environment=Environment.here("cpu"),
        finished=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    )
