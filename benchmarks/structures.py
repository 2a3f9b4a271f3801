"""What each structure of the synthetic dialogues is worth, and what learners make of it (docs/synthetic.md).

python benchmarks/structures.py [SEEDS]
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np

from mer_zoo import registry
from mer_zoo.data.ceiling import VIEWS, ceilings
from mer_zoo.data.synthetic import synthetic


def measure(seeds: int) -> dict[str, list[float]]:
    """Return the accuracy on test, in %, of every view and of every learner on dialogues of several seeds."""
    found = defaultdict(list)
    for seed in range(seeds):
        data = synthetic(seed=seed)
        train, validation, test = (data.select(ids) for ids in data.splits.values())
        for view, accuracy in ceilings(data).items():
            found[view].append(100 * accuracy)
        for card in registry.cards("learner"):
            learner = registry.build(card, {}, {}).fit(train, validation, data.label_names)
            hits = [learner.predict_proba(dialogue).argmax(1) == dialogue.labels for dialogue in test]
            found[card.name].append(100 * np.concatenate(hits).mean())
    return found


def markdown(found: dict[str, list[float]]) -> str:
    """Return the table: mean ± standard deviation over seeds, and the distance to the ceiling of the same dialogues."""
    lines = ["| view, or learner | accuracy in % | below the ceiling |", "|---|---|---|"]
    learners = sorted(found.keys() - VIEWS.keys(), key=lambda name: -np.mean(found[name]))
    for name in [*VIEWS, *learners]:
        below = np.subtract(found["full"], found[name])
        shown = "" if name == "full" else f"{_spread(below)}"
        lines.append(f"| {name if name in VIEWS else f'`{name}`'} | {_spread(found[name])} | {shown} |")
    return "\n".join(lines)


def _spread(values: list[float] | np.ndarray) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


if __name__ == "__main__":
    print(markdown(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)))
