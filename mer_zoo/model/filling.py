"""From a recipe to a plan: what the recipe leaves open is resolved for the data."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mer_zoo import registry
from mer_zoo.data.conversation import MODALITIES
from mer_zoo.data.normalising import Way
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.model import optimising
from mer_zoo.model.plan import PartChoice, Plan, StageChoice, Training
from mer_zoo.model.recipe import RecipeFile
from mer_zoo.model.wiring import own_nodes
from mer_zoo.parts.loss.base import seen_by
from mer_zoo.results.identity import COMPUTES


def fill(file: RecipeFile, widths: Mapping[str, int], data_name: str = "the data") -> Plan:
    """Resolve a recipe for features of given widths.

    Args:
        file: the recipe.
        widths: modality -> width of its features.
        data_name: what errors call the data.

    Raises:
        MerZooError: an unknown part or setting, a modality the data lacks, a width that differs; every fault at once.

    Example:
        >>> from mer_zoo.model import recipe
        >>> fill(recipe.read("bilstm"), {"text": 8}).model["context"].plain()["encoder"]["name"]
        'bilstm'
    """
    modalities = _modalities(file, widths, data_name)
    filling = _Filling(file)
    recipe = file.recipe
    normalise = _normalise(file, modalities)
    if recipe.learner is not None:
        learner = filling.part("learner", recipe.learner, "learner")
        filling.refuse()
        return Plan(modalities=modalities, normalise=normalise, learner=learner, code=filling.code)
    graph = recipe.graph and filling.part("graph", recipe.graph, "graph")
    apart = {*MODALITIES, *modalities}
    made = {stage.into for stage in recipe.model.values() if stage.into is not None}
    nodes = {*apart, *made, "utterance", *(f"{a}<{b}" for a in apart for b in apart)}
    nodes |= set() if filling.faults else {*own_nodes(graph)}
    stages: dict[str, StageChoice] = {}
    for name, stage in recipe.model.items():
        filled = filling.stage(name, stage, tuple(stages), nodes)
        for number in range(stage.repeat or 1):
            each = f"{name}_{number + 1}" if stage.repeat else name
            if each in stages or (stage.repeat and each in recipe.model):
                filling.fault(f"there is a stage '{each}' already. Rename one of the two.", "model", name, "repeat")
            stages[each] = filled
    balancing = filling.part("balancing", recipe.balancing, "balancing")
    loss = filling.part("loss", recipe.loss, "loss")
    filling.tasks(recipe.tasks, loss)
    training = filling.training(recipe.training)
    filling.refuse()
    if len(modalities) == 1:
        balancing = PartChoice(name="none")  # nothing to balance; what ran is what is written down
    return Plan(
        modalities=modalities,
        graph=graph,
        tasks=recipe.tasks,
        model=stages,
        balancing=balancing,
        loss=loss,
        training=training,
        normalise=normalise,
        code=filling.code,
    )


def _normalise(file: RecipeFile, modalities: Mapping[str, int]) -> dict[str, Way]:
    """Return how each modality is normalised, without those that are left as they are."""
    asked = file.recipe.normalise
    ways: dict[str, Way] = dict.fromkeys(modalities, asked) if isinstance(asked, str) else asked
    for modality in ways:
        if modality not in (*modalities, *MODALITIES):
            place = file.place("normalise", modality)
            raise MerZooError(f"{place}: no modality '{modality}'.{nearest(modality, modalities)}")
    return {modality: way for modality, way in ways.items() if modality in modalities and way != "none"}


@dataclass
class _Filling:
    """Resolves one part after the other and collects what is wrong with them."""

    file: RecipeFile
    faults: list[str] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)

    def refuse(self) -> None:
        """Raise if anything was wrong."""
        if self.faults:
            raise MerZooError("\n".join(self.faults))

    def part(self, kind: str, part: PartChoice, *location: Any) -> PartChoice:
        """Return the part with all its settings."""
        place = self.file.place(*location)
        try:
            card = registry.find(kind, part.name, place)
            settings = registry.fill(card, part.settings, place, partial(self.file.place, *location))
            if (written := registry.code(card)) is not None:
                self.code[card.id] = written
        except MerZooError as error:
            self.faults.append(str(error))
            return part
        return PartChoice(name=card.name, **settings)

    def stage(self, name: str, stage: StageChoice, earlier: tuple[str, ...], nodes: set[str]) -> StageChoice:
        """Return the stage with its part filled; the stages and node types it names are checked, wildcards resolved."""
        known = {key for key in nodes if "<" not in key}
        for node in [*(stage.only or []), *(m for w in (stage.add or {}).values() if isinstance(w, dict) for m in w)]:
            if node not in nodes:
                key = "only" if stage.only else "add"
                self.fault(f"no modality '{node}'.{nearest(node, known)}", "model", name, key)
        changes: dict[str, Any] = {"repeat": None}
        for source in stage.sources:
            if not (fnmatch.filter(earlier, source) if stage.skip else source in earlier):
                text = f"no stage '{source}' before this one.{nearest(source, earlier)}"
                self.fault(text, "model", name, stage.kind)
        if stage.skip is not None:
            found = [before for pattern in stage.sources for before in fnmatch.filter(earlier, pattern) or [pattern]]
            changes["skip"] = list(dict.fromkeys(found))
        if stage.part is not None:
            changes[stage.kind] = self.part(stage.kind, stage.part, "model", name, stage.kind)
        if stage.task is not None and stage.task not in self.file.recipe.tasks:
            text = f"no task '{stage.task}'.{nearest(stage.task, self.file.recipe.tasks)} Name it under `tasks`."
            self.fault(text, "model", name, "task")
        return stage.model_copy(update=changes)

    def training(self, training: Training) -> Training:
        """Return how to train, with the settings of optimiser and schedule."""
        try:
            return optimising.filled(training, partial(self.file.place, "training"), self.code)
        except MerZooError as error:
            self.faults.append(str(error))
            return training

    def tasks(self, tasks: Mapping[str, int], loss: PartChoice) -> None:
        """Refuse tasks that neither a head judges nor the loss sees, and a loss that asks for what there is not."""
        try:
            seen = seen_by(registry.load(registry.find("loss", loss.name)))
        except MerZooError as error:
            if not self.faults:
                self.fault(f"loss/{loss.name}: {error}", "loss")
            return
        judged = {stage.task for stage in self.file.recipe.model.values()}
        for task in tasks:
            if task not in judged and "targets" not in seen:
                self.fault(
                    f"no head judges the task '{task}'. Give one `task: {task}`, or leave it out.", "tasks", task
                )

    def fault(self, text: str, *location: Any) -> None:
        """Note what is wrong at a place of the recipe."""
        self.faults.append(f"{self.file.place(*location)}: {text}")


def _modalities(file: RecipeFile, widths: Mapping[str, int], data_name: str) -> dict[str, int]:
    asked = file.recipe.modalities
    if asked == "all":
        return dict(widths)
    missing = [m for m in asked if m not in widths]
    if missing:
        shared = [m for m in asked if m in widths] or list(widths)
        raise MerZooError(
            f"{file.place('modalities')}: recipe '{file.name}' needs {', '.join(missing)}, but {data_name} has only "
            f"{', '.join(widths)}. Use `-o modalities=[{', '.join(shared)}]` or other data."
        )
    if isinstance(asked, dict):
        for modality, width in asked.items():
            if widths[modality] != width:
                raise MerZooError(
                    f"{file.place('modalities', modality)}: recipe '{file.name}' is for {modality} features of width "
                    f"{width}, but {data_name} has width {widths[modality]}. Use the features the recipe names, or "
                    f"`-o modalities=all` to take what the data has."
                )
    return {m: widths[m] for m in asked}


def versions(plan: Plan) -> dict[str, int]:
    """Return the versions of what computes a plan: `mer_zoo`, and each of its parts by `kind/name`.

    Example:
        >>> from mer_zoo.model import recipe
        >>> sorted(versions(fill(recipe.read("bilstm"), {"text": 8})))[:2]
        ['balancing/none', 'encoder/bilstm']
    """
    parts = {f"{kind}/{part.name}": registry.find(kind, part.name).version for kind, part in plan.parts()}
    return {"mer_zoo": COMPUTES, **parts}
