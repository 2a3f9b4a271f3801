"""How often a comparison claims a difference where there is none, and how often it sees one: on simulated worlds.

`python -m mer_zoo.comparison.calibration` prints both, beside what resampling only one of seeds and dialogues would do.
The worlds have what real results have: utterances of unequal difficulty in dialogues of unequal length and difficulty,
models that suit some dialogues more than others, and seeds with more luck than others, on some dialogues above all.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np

from mer_zoo.comparison.inference import LEVEL, difference, holm
from mer_zoo.results.metrics import weighted_f1


@dataclass(frozen=True)
class World:
    """Where models of equal skill are tested; the spreads are standard deviations of the log-odds of being right.

    Attributes:
        dialogues: in the test split.
        utterances: mean length; the lengths vary with a standard deviation of about three quarters of it.
        classes: of labels; their shares are drawn, the rarer the fewer.
        right: log-odds of the average utterance of average difficulty.
        model_dialogue: of a model on a dialogue, the same for all its seeds.
        model_class: of a model on a class within a dialogue, the same for all its seeds.
        seed: of a run.
        run_dialogue: of a run on a dialogue.
    """

    dialogues: int = 100
    utterances: int = 10
    classes: int = 6
    right: float = 1.1
    model_dialogue: float = 0.4
    model_class: float = 0.0
    seed: float = 0.07
    run_dialogue: float = 0.3


def simulate(
    world: World, models: int, seeds: int, worlds: int, random: np.random.Generator, better: float = 0.0
) -> np.ndarray:
    """Draw confusion matrices, int32 `[model, world, seed, dialogue, C, C]`; dialogues are new in every world.

    Args:
        world: sizes and spreads.
        models: how many; equally good but for the first.
        seeds: runs of each.
        worlds: how many to draw.
        random: generator to draw from.
        better: added to the log-odds of the first model.

    Example:
        >>> simulate(World(dialogues=5), 2, 3, 4, np.random.default_rng(0)).shape
        (2, 4, 3, 5, 6, 6)
    """
    shape, classes = (worlds, world.dialogues), world.classes
    length = np.maximum(random.poisson(random.gamma(2, world.utterances / 2, shape)), 1)
    there = np.arange(length.max()) < length[..., None]
    share = random.dirichlet(np.full(classes, 3.0), worlds).cumsum(-1)
    label = (random.random((*there.shape, 1)) > share[:, None, None, :-1]).sum(-1)
    ease = world.right + random.normal(0, 0.6, (*shape, 1)) + random.normal(0, 1, there.shape)
    cell = (np.arange(worlds * world.dialogues).reshape(*shape, 1) * classes + label) * classes
    found = np.empty((models, worlds, seeds, world.dialogues, classes, classes), np.int32)
    for model in range(models):
        suits = random.normal(0, world.model_dialogue, (*shape, 1)) + (better if model == 0 else 0)
        suits = suits + np.take_along_axis(random.normal(0, world.model_class, (*shape, classes)), label, -1)
        for seed in range(seeds):
            luck = random.normal(0, world.seed, (worlds, 1, 1)) + random.normal(0, world.run_dialogue, (*shape, 1))
            right = random.logistic(size=there.shape) < ease + suits + luck
            wrong = (label + random.integers(1, classes, there.shape)) % classes
            predicted = np.where(right, label, wrong)
            counts = np.bincount((cell + predicted)[there], minlength=worlds * world.dialogues * classes**2)
            found[model, :, seed] = counts.reshape(worlds, world.dialogues, classes, classes)
    return found


def claims(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Whether each way to test claims that some model differs from the first, bool `[world]` by way.

    Args:
        confusion: `[model, world, seed, dialogue, C, C]`.
    """
    found = [difference(other, confusion[0]) for other in confusion[1:]]
    ways = {"seeds alone": "p_seeds", "dialogues alone": "p_dialogues", "both (what is claimed)": "p"}
    corrected = {way: holm(np.stack([getattr(one, p) for one in found], -1)) for way, p in ways.items()}
    return {way: np.any(values < LEVEL, axis=-1) for way, values in corrected.items()}


def bootstrap_claims(confusion: np.ndarray, random: np.random.Generator, draws: int = 500) -> np.ndarray:
    """Whether the percentile interval of a bootstrap over seeds and dialogues excludes 0, bool `[world]`.

    Args:
        confusion: `[2, world, seed, dialogue, C, C]`.
        random: generator to draw from.
        draws: per world.
    """
    _, worlds, seeds, dialogues, classes, _ = confusion.shape
    excludes = np.empty(worlds, bool)
    for world in range(worlds):
        times = random.multinomial(dialogues, np.full(dialogues, 1 / dialogues), draws).astype(np.float32)
        score = []
        for model in confusion[:, world]:
            flat = model.swapaxes(0, 1).reshape(dialogues, -1).astype(np.float32)
            values = weighted_f1((times @ flat).reshape(draws, seeds, classes, classes))
            weight = random.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
            score.append((values * weight).sum(-1))
        low, high = np.quantile(score[0] - score[1], (LEVEL / 2, 1 - LEVEL / 2))
        excludes[world] = low > 0 or high < 0
    return excludes


def main(worlds: int = 2000) -> None:
    """Print the shares of false claims and of differences seen, each over `worlds` worlds."""
    random, usual, counts = np.random.default_rng(0), World(), (3, 6, 10, 16)

    def shares(world: World, models: int, seeds: int, better: float = 0.0) -> tuple[dict[str, float], float]:
        found: dict[str, list[np.ndarray]] = {}
        gained, chunk = [], min(worlds, 100)
        for _ in range(worlds // chunk):
            confusion = simulate(world, models, seeds, chunk, random, better)
            for way, values in claims(confusion).items():
                found.setdefault(way, []).append(values)
            if models == 2 and not better:
                some = confusion[:, : -(-chunk // 4)]
                found.setdefault("bootstrap of both", []).append(bootstrap_claims(some, random))
            gained.append(weighted_f1(confusion[:2].sum(3)).mean((1, 2)))
        first, second = np.mean(gained, 0)
        return {way: float(np.concatenate(values).mean()) for way, values in found.items()}, first - second

    def row(name: str, values: list[str]) -> None:
        print(f"{name:<44}" + "".join(f"{value:>8}" for value in values), flush=True)

    row(f"False claims, % of {worlds} worlds; seeds:", [str(count) for count in counts])
    for name, world, models in (
        ("two models", usual, 2),
        ("four models, Holm over three", usual, 4),
        ("two models, no model x dialogue effect", replace(usual, model_dialogue=0), 2),
        ("two models, twice the effect, 20 dialogues", replace(usual, model_dialogue=0.8, dialogues=20), 2),
        ("two models, 31 dialogues of 50", replace(usual, dialogues=31, utterances=50, model_class=0.5), 2),
        ("two models, 7 classes, 280 dialogues of 9", replace(usual, dialogues=280, utterances=9, classes=7), 2),
    ):
        made = [shares(world, models, count)[0] for count in counts]
        print(name)
        for way in made[0]:
            row(f"  {way}", [f"{100 * one[way]:.1f}" for one in made])
    row("Differences seen, %; seeds:", [str(count) for count in counts[1:]])
    for better in (0.1, 0.2, 0.3, 0.5):
        seen = [shares(usual, 2, count, better) for count in counts[1:]]
        points = 100 * np.mean([gain for _, gain in seen])
        row(f"  {points:.1f} points", [f"{100 * one['both (what is claimed)']:.0f}" for one, _ in seen])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
