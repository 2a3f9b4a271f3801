"""What features of very different scales cost a model, and whether `normalise: train` brings it back.

    python benchmarks/scales.py

Audio columns of the default synthetic dialogues are multiplied by factors from 10^-5 to 10^2, drawn once per draw of
scales; every recipe is trained on plain and on rescaled features, as its default has it. Prints test accuracy in %.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import joblib
import numpy as np

from mer_zoo.data.conversation import Dataset
from mer_zoo.data.synthetic import synthetic
from mer_zoo.training.experiment import prepare

RECIPES = ("amb_dsgdn", "dialoguegcn", "mmgcn", "bilstm")
LOWEST, HIGHEST = -5.0, 2.0  # powers of ten


def rescaled(data: Dataset, draw: int) -> Dataset:
    """Return the dialogues with every audio column multiplied by a factor of its own."""
    powers = np.random.default_rng(draw).uniform(LOWEST, HIGHEST, data.widths["audio"])
    powers[:2] = LOWEST, HIGHEST
    factors = (10.0**powers).astype(np.float32)
    moved = [replace(d, features={**d.features, "audio": d.features["audio"] * factors}) for d in data]
    return Dataset(f"{data.name}, scales {draw}", tuple(moved), data.label_names, data.splits)


def accuracy(recipe: str, draw: int | None, seed: int, epochs: int, normalise: str) -> float:
    """Train one run and return its accuracy on the test split, in %."""
    plain = synthetic()
    data = plain if draw is None else rescaled(plain, draw)
    changes = [f"training.epochs={epochs}", "training.patience=15", f"normalise={normalise}"]
    return 100 * prepare(recipe, data, changes=changes, seed=seed).run().result.metrics.test.accuracy


def main() -> None:
    """Print a row per recipe and way of normalising."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=1, help="draws of scales")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--normalise", nargs="+", default=["train", "none"], help="ways to compare")
    options = parser.parse_args()
    rows = [(recipe, way) for recipe in RECIPES for way in options.normalise]
    draws = [None, *range(options.draws)]
    cells = [(recipe, draw, seed, options.epochs, way) for recipe, way in rows for draw in draws
             for seed in range(options.seeds)]  # fmt: skip
    found = np.array(joblib.Parallel(n_jobs=-1)(joblib.delayed(accuracy)(*cell) for cell in cells))
    table = found.reshape(len(rows), len(draws), options.seeds)
    print("| recipe | normalise | plain | " + " | ".join(f"scales {draw}" for draw in draws[1:]) + " |")
    print("|:--|:--|" + "--:|" * len(draws))
    for (recipe, way), scores in zip(rows, table, strict=True):
        shown = " | ".join(f"{s.mean():.1f} ± {s.std(ddof=1):.1f}" for s in scores)
        print(f"| {recipe} | {way} | {shown} |")


if __name__ == "__main__":
    main()
