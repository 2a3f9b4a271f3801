"""What AMB-DSGDN's two ideas do inside a trained model: lambda, the two attention maps, and the rates of dropping.

    python benchmarks/inside.py

Trains the default recipe on the data of the ablation suite and prints, over seeds: lambda of every differential
attention before and after training; how alike both maps are (cosine over the edges of a target, mean over targets,
heads and test dialogues), which says how much of the first map the second can cancel; and the mean rate at which each
modality was dropped after the warm-up.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import joblib
import numpy as np
import torch

from mer_zoo.comparison import suite
from mer_zoo.data.loading import load
from mer_zoo.kernel.segment import Segment
from mer_zoo.parts.layer.differential_gat import DifferentialAttention
from mer_zoo.training.experiment import prepare
from mer_zoo.training.task import Task


def attentions(model: torch.nn.Module) -> dict[str, DifferentialAttention]:
    """Return every differential attention of a model by stage, modality and place."""
    named = model.named_modules()
    return {name.removeprefix("stages."): m for name, m in named if isinstance(m, DifferentialAttention)}


def lambdas(model: torch.nn.Module) -> dict[str, float]:
    """Return lambda by stage: the mean over modalities, both attentions of a layer, and heads."""
    found = defaultdict(list)
    for name, attention in attentions(model).items():
        found[f"lambda, {name.split('.')[0]}"].append(-float(attention._damping()[:, 0, 1].mean()))
    return {stage: float(np.mean(values)) for stage, values in found.items()}


def likeness(model: Any, task: Task) -> float:
    """Return the cosine of both maps over the edges of a target, the mean over all."""
    found: list[float] = []
    original = Segment.softmax

    def watched(self: Segment, scores: torch.Tensor) -> torch.Tensor:
        both = original(self, scores)
        first, second = both.unbind(1)
        along = [self.sum(x) for x in (first * second, first**2, second**2)]
        found.append(float((along[0] / (along[1] * along[2]).sqrt().clamp(min=1e-12)).mean()))
        return both

    corpus = Task(task.name, task.plan, task.dataset, task.split, kernels=Segment).test
    Segment.softmax = watched  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            model.eval()(corpus.batch(range(len(corpus))))
    finally:
        Segment.softmax = original  # type: ignore[method-assign]
    return float(np.mean(found))


def one(data: Any, seed: int, epochs: int) -> dict[str, float]:
    """Train one seed and look inside."""
    torch.set_num_threads(1)
    changes = [f"training.epochs={epochs}", "training.patience=15"]
    experiment = prepare("amb_dsgdn", data, changes=changes, seed=seed)
    outcome = experiment.run()
    values = {"both maps alike": likeness(outcome.model, experiment.task())}
    values |= lambdas(outcome.model)  # type: ignore[arg-type]
    rates = [epoch["rates"] for epoch in outcome.result.history[5:] if "rates" in epoch]
    return values | {f"drop rate, {m}": float(np.mean([r[m] for r in rates])) for m in (rates[0] if rates else {})}


def main() -> None:
    """Print a column per dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    datasets = suite.read("ablation").data
    cells = [(data, seed, options.epochs) for data in datasets for seed in range(options.seeds)]
    found = joblib.Parallel(n_jobs=-1)(joblib.delayed(one)(*cell) for cell in cells)
    rows: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in datasets])
    for number, values in enumerate(found):
        for name, value in values.items():
            rows[name][number // options.seeds].append(value)
    print("| | " + " | ".join(load(data).name for data in datasets) + " |")
    print("|:--|" + "--:|" * len(datasets))
    for name, columns in rows.items():
        print(f"| {name} | " + " | ".join(f"{np.mean(c):.2f} ± {np.std(c, ddof=1):.2f}" for c in columns) + " |")
    print("\nLambda starts at 0.36 in every layer.")


if __name__ == "__main__":
    main()
