"""Draw the ablation from the table that `mer-zoo compare ablation` writes: one dot per seed, one row per variant.

python benchmarks/draw_ablation.py baselines/results/ablation.csv ...
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt

from mer_zoo.comparison.summary import read_csv

TARGET = Path(__file__).resolve().parent.parent / "docs/assets/ablation.svg"
BASELINE = "AMB-DSGDN"


def main(paths: list[str]) -> None:
    """Write the figure; folds of one seed are averaged."""
    found: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in (row for path in paths for row in read_csv(Path(path))):
        found[row["dataset"]][row["model"]][row["seed"]].append(100 * float(row["weighted_f1"]))
    plt.rcParams |= {"svg.hashsalt": "mer_zoo", "svg.fonttype": "none", "font.size": 9}
    figure, panels = plt.subplots(len(found), 1, figsize=(7, 1.6 * len(found)), sharex=False, squeeze=False)
    for panel, (dataset, models) in zip(panels[:, 0], found.items(), strict=True):
        order = [BASELINE, *(name for name in models if name != BASELINE)][::-1]
        for height, name in enumerate(order):
            scores = [np.mean(folds) for folds in models[name].values()]
            panel.plot(scores, [height] * len(scores), "o", color="#1b6ca8", alpha=0.5, markersize=4)
            panel.plot([np.mean(scores)], [height], "|", color="black", markersize=14)
        panel.set_yticks(range(len(order)), order)
        panel.set_title(dataset, loc="left", fontsize=9)
        panel.grid(axis="x", alpha=0.3)
    panels[-1, 0].set_xlabel("weighted F1 on test, in %: a dot per seed, their mean as a bar")
    figure.tight_layout()
    figure.savefig(TARGET, metadata={"Date": None})
    print(TARGET.name)


if __name__ == "__main__":
    main(sys.argv[1:])
