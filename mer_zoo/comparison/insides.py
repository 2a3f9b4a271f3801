"""What the trained models of a comparison look at in its worst dialogues, and what each modality says, for the report.

Both need the models, so they are asked when a report is made, where the weights of the runs were kept.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mer_zoo.comparison.statistics import Comparison, Model
from mer_zoo.comparison.utterances import Judged
from mer_zoo.errors import MerZooError
from mer_zoo.inside.attention import attention
from mer_zoo.inside.contributions import Contributions, contributions
from mer_zoo.inside.maps import AttentionMap, Node
from mer_zoo.model.saving import Saved, load, run_of
from mer_zoo.results.result import Result
from mer_zoo.showing import visible
from mer_zoo.training.experiment import Experiment, weights_beside

DIALOGUES = 3
"""Dialogues in which a model is looked into, those with the most errors first."""

UTTERANCES = 40
"""Of a longer dialogue, maps show the first ones."""

ROOM = 1_500_000
"""Weights of maps that a report holds, a byte each; every model gets an equal share."""

HOW = "Run `mer-zoo compare SUITE --keep-weights`, or give `mer-zoo report` the folder where weights were kept."


@dataclass
class Insides:
    """What was found inside the models of a comparison.

    Attributes:
        models: those that could be asked, as the report's script takes them.
        notes: why others are not there, and how to get them.
    """

    models: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def kept(places: Iterable[Path]) -> dict[str, Path]:
    """Return run -> file of its weights, of those that lie in folders or beside result files.

    Args:
        places: folders and result files.

    Example:
        >>> kept([Path("no-such-folder")])
        {}
    """
    files = [f for p in places for f in (sorted(p.rglob("*.safetensors")) if p.is_dir() else [weights_beside(p)])]
    return {run: file for file in files if (run := run_of(file)) is not None}


def parts_by_path(experiments: Iterable[Experiment]) -> set[str]:
    """Return the parts by file or module that experiments ran.

    Args:
        experiments: which.

    Example:
        >>> parts_by_path([])
        set()
    """
    return {part.name for one in experiments for _, part in one.plan.parts() if ":" in part.name}


def inside(
    comparison: Comparison,
    dialogues: Sequence[Judged],
    weights: Mapping[str, Path],
    *,
    room: int = ROOM,
    trust: Collection[str] = (),
) -> Insides:
    """Ask every model about the worst dialogues.

    Args:
        comparison: of one dataset.
        dialogues: as `utterances.judged` returns them.
        weights: run -> file, see `kept`.
        room: weights of maps in all.
        trust: parts by file or module that may be run, see `saving.load`.
    """
    found = Insides()
    asked = [model for model in comparison.models if not any(run.recipe.get("learner") for run in model.all_runs)]
    without = [model.name for model in asked if not any(run.run in weights for run in model.all_runs)]
    what = "What a model looks at and what each modality says"
    if asked and len(without) == len(asked):
        found.notes.append(f"{what} can be shown where weights were kept. {HOW}")
        return found
    if asked and not any(one.said is not None for one in dialogues):
        found.notes.append(
            f"{what} can be shown where the dialogues are at hand. Give `mer-zoo report` their `--data`."
        )
        return found
    if without:
        found.notes.append(f"Not here, for want of weights: {', '.join(without)}. {HOW}")
    blind, share = [], room // max(len(asked) - len(without), 1)
    for model in asked:
        if model.name in without:
            continue
        try:
            shown = _model(model, dialogues[:DIALOGUES], weights, share, trust)
        except (
            Exception
        ) as error:  # a part of the user's own may raise anything, and the other models have been trained
            reason = str(error) if isinstance(error, MerZooError) else f"{type(error).__name__}: {error}"
            found.notes.append(f"{model.name} could not be asked: {reason}")
            continue
        if not shown["looks"]:
            blind.append(model.name)
        found.models.append(shown)
    found.models.sort(key=lambda one: not one["looks"])  # those that look at something first
    if blind:
        found.notes.append(f"Without attention between utterances that could be recorded: {', '.join(blind)}.")
    return found


def _model(
    model: Model, dialogues: Sequence[Judged], weights: Mapping[str, Path], room: int, trust: Collection[str]
) -> dict[str, Any]:
    loaded: dict[str, Saved] = {}
    shown, looks = [], False
    for number, one in enumerate(dialogues):
        run = _run_of(model, one.name, weights)
        if one.said is None or run is None:
            continue
        if run.run not in loaded:
            loaded[run.run] = load(weights[run.run], trust=trust)
        saved = loaded[run.run]
        try:
            maps = list(attention(saved, one.said))
        except MerZooError:  # it has none; what else is wrong with it, its contributions say
            maps = []
        looks = looks or bool(maps)
        packed, room = _packed(maps, room)
        shown.append(
            {
                "dialogue": number,
                "run": f"seed {run.seed}" + ("" if run.fold is None else f", fold {run.fold}"),
                "length": min(len(one.said), UTTERANCES),
                "left_out": len({_place(each) for each in maps}) - len(packed),
                "maps": packed,
            }
            | _said(contributions(saved, one.said))
        )
    return {"name": visible(model.name), "looks": looks, "dialogues": shown}


def _run_of(model: Model, dialogue: str, weights: Mapping[str, Path]) -> Result | None:
    """The first run that tested a dialogue and whose weights are there."""
    return next((run for run in model.all_runs if dialogue in run.predictions and run.run in weights), None)


def _said(one: Contributions) -> dict[str, Any]:
    """What each modality adds to the class that was decided on, in points."""
    adds = {visible(m): np.round(100 * values).astype(int).tolist() for m, values in one.contributions.items()}
    return {"decided": [visible(one.label_names[number]) for number in one.decided], "adds": adds}


def _place(one: AttentionMap) -> tuple[str, str, str]:
    return one.stage, one.part, one.place


def _packed(maps: Sequence[AttentionMap], room: int) -> tuple[list[dict[str, Any]], int]:
    """Put the maps of each attention together, a byte per weight, as long as there is room; returns what is left."""
    found = []
    for place, group in groupby(maps, _place):
        together = list(group)
        rows, columns = (_kept(side) for side in (together[0].targets, together[0].sources))
        size = len(together) * len(rows) * len(columns)
        if size > room:
            break
        room -= size
        found.append(
            {
                "title": visible(", ".join(word for word in place if word)),
                "targets": _named([together[0].targets[i] for i in rows]),
                "sources": _named([together[0].sources[i] for i in columns]),
                "maps": [_bytes(one.name, one.matrix[np.ix_(rows, columns)]) for one in together],
            }
        )
    return found, room


def _kept(nodes: Sequence[Node]) -> list[int]:
    return [i for i, node in enumerate(nodes) if node.utterance < UTTERANCES]


def _named(nodes: Sequence[Node]) -> list[tuple[int, str]]:
    """Number of the utterance and modality; -1 and a name for a node that is none."""
    several = len({node.type for node in nodes if not node.own}) > 1
    names = [f"{node.type} {node.utterance}" if node.own else node.type * several for node in nodes]
    return [(-1 if node.own else node.utterance, visible(name)) for node, name in zip(nodes, names, strict=True)]


def _bytes(name: str, matrix: np.ndarray) -> dict[str, Any]:
    """A matrix in 255 steps from minus to plus the largest."""
    most = max(float(np.abs(matrix).max(initial=0)), 1e-9)
    steps = np.round(127 * np.nan_to_num(matrix) / most).astype(np.int8)
    return {"name": name, "most": round(most, 6), "data": b64encode(steps.tobytes()).decode()}
