"""A plan: all that decides what a model is and how it is trained, as checked data; a recipe filled for a dataset."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic

from mer_zoo.data.normalising import Way
from mer_zoo.registry.faults import short
from mer_zoo.registry.kinds import KINDS

PARTS = tuple(name for name, kind in KINDS.items() if kind.place == "stage")
STAGE_KINDS = (*PARTS, "skip", "start", "add", "padding")
APPLIES_TO: dict[str, tuple[str, ...]] = {
    "only": PARTS,
    "relations": ("layer", "edge_weight"),
    "shared": ("encoder", "head"),
    "per": ("fusion",),
    "into": ("fusion",),
    "task": ("head",),
    "repeat": ("encoder", "layer"),
}
"""The kinds of stages for which a key beside the part has a meaning."""


def usable_name(name: str) -> str:
    """Return the name of a stage or a modality, if it can be one.

    Raises:
        ValueError: it is not one word.

    Example:
        >>> usable_name("text")
        'text'
    """
    if not re.fullmatch(r"[^\W_]\w{0,63}", name):
        raise ValueError(f"'{short(name)}' is not a name. Take one word of letters, digits and underscores")
    return name


Name = Annotated[str, pydantic.AfterValidator(usable_name)]
"""What a stage or a modality may be called: torch's modules are named by it, and a recipe's paths."""


class Strict(pydantic.BaseModel):
    """Checked data that refuses keys it does not know and never changes."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PartChoice(Strict):
    """A part by name with its settings; a bare name stands for `{name: ...}`."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    name: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})

    def plain(self) -> dict[str, Any]:
        """Return the part as plain data: `{name: ..., settings}`."""
        return {"name": self.name, **self.settings}

    def brief(self) -> str | dict[str, Any]:
        """Return the part as plain data, a bare name where it has no settings."""
        return self.plain() if self.settings else self.name


class StageChoice(Strict):
    """One step of a model: exactly one of the kinds, and where it applies.

    Attributes:
        encoder, layer, edge_weight, fusion, head: the part.
        skip: stages whose outputs are put in front of the current states (concatenated).
        start: stage to go back to; what follows continues from its output, as a second branch.
        add: stages whose outputs are added to the current states, each times its weight, or times one per modality.
        padding: `shown`: until `hidden`, every dialogue is filled up to the longest of its batch with utterances of the
            first speaker, zeros at first, and the stages between take them for real, as much published code does.
        only: node types the stage applies to; the others pass by untouched. Types the data lacks are ignored. A fusion
            hands nodes of the graph's own that it names to every utterance: its speaker's, or its dialogue's mean.
        relations: wildcard patterns of the relations that a layer or edge weight sees.
        shared: one instance for all node types instead of one for each.
        per: what a fusion mixes instead of everything into the utterance. `pair`: each ordered pair of modalities,
            itself included, into states named `text<audio` (text, as seen from audio); `other`: the same without
            itself, except where there is but one; `itself`: each alone; `each`: each with all others behind it;
            `target`: all states of a target (`text<...`).
        into: the states that a fusion makes or replaces while all others stay: a modality, or a name of your own that
            later stages may refer to.
        task: label column that a head judges beside the emotion; its logits are for the loss alone.
        repeat: run the stage so often, each time with weights of its own, as NAME_1, NAME_2, ...
    """

    encoder: PartChoice | None = None
    layer: PartChoice | None = None
    edge_weight: PartChoice | None = None
    fusion: PartChoice | None = None
    head: PartChoice | None = None
    skip: str | list[str] | None = None
    start: str | list[str] | None = None
    add: dict[str, float | dict[str, float]] | None = None
    padding: Literal["shown", "hidden"] | None = None
    only: list[str] | None = None
    relations: str | list[str] | None = None
    shared: bool = False
    per: Literal["pair", "other", "itself", "each", "target"] | None = None
    into: Name | None = None
    task: str | None = None
    repeat: pydantic.PositiveInt | None = None

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> StageChoice:
        given = [kind for kind in STAGE_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a stage has exactly one of {', '.join(STAGE_KINDS)}; this one has {given or 'none'}")
        for key, kinds in APPLIES_TO.items():
            if getattr(self, key) and given[0] not in kinds:
                raise ValueError(f"`{key}` has no meaning for a {given[0]}, only for: {', '.join(kinds)}. Leave it out")
        if self.per and self.into:
            raise ValueError("`per` and `into` both say what a fusion makes. Leave one of them out")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds this stage is."""
        return next(kind for kind in STAGE_KINDS if getattr(self, kind) is not None)

    @property
    def part(self) -> PartChoice | None:
        """The part, for stages that have one."""
        return getattr(self, self.kind) if self.kind in PARTS else None

    @property
    def sources(self) -> tuple[str, ...]:
        """The earlier stages that a skip, a start or an addition names."""
        if self.add is not None:
            return tuple(self.add)
        named = self.skip if self.skip is not None else self.start
        return (named,) if isinstance(named, str) else tuple(named or ())

    def plain(self) -> dict[str, Any]:
        """Return the stage as it is written into a plan: `{kind: part or what else, ...}`, without what is not set."""
        if self.part is not None:
            given: Any = self.part.plain()
        else:
            given = self.add or self.padding or list(self.sources)
        return {self.kind: given} | {key: getattr(self, key) for key in APPLIES_TO if getattr(self, key)}


class Training(Strict):
    """How a model is trained.

    Attributes:
        optimizer: `adam`, `adamw`, `sgd`, or any of torch's or of your own by path (`torch.optim:RAdam`), with settings
            as `{name: adamw, amsgrad: true}`.
        learning_rate: step size, before warm-up and schedule.
        weight_decay: L2 penalty (`adam`, `sgd`) or decoupled decay (`adamw`).
        schedule: how the learning rate changes from epoch to epoch. `none`; `cosine` or `linear`, down to 0 behind the
            last epoch; `plateau`, times `factor` (0.1) where `watch` (`loss`, or a score) has not got better for more
            than `patience` (10) epochs on validation; or any of torch's or of your own by path.
        warm_up: epochs in which the learning rate rises linearly to its full value; the schedule begins behind them.
        dialogues_per_batch: dialogues in a step.
        epochs: passes over the training dialogues, at most.
        patience: epochs without a better validation score before stopping; null: never stop early.
        select: what chooses the epoch on validation: a score, its highest value; `loss`, its lowest; or
            `module:function`, confusion matrix → score.
        stop_on: what must not have got better before stopping: what selects (`select`), or it and the loss (`both`).
        clip: largest norm of the gradient; null: no clipping.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)
    optimizer: PartChoice = PartChoice(name="adam")
    learning_rate: pydantic.PositiveFloat = 1e-3
    weight_decay: pydantic.NonNegativeFloat = 0.0
    schedule: PartChoice = PartChoice(name="none")
    warm_up: pydantic.NonNegativeInt = 0
    dialogues_per_batch: pydantic.PositiveInt = 16
    epochs: Annotated[int, pydantic.Field(gt=0, le=100_000)] = 30
    patience: pydantic.PositiveInt | None = None
    select: str = "weighted_f1"
    stop_on: Literal["select", "both"] = "select"
    clip: pydantic.PositiveFloat | None = None

    @pydantic.field_validator("schedule", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return "none" if value is None else value

    @pydantic.model_validator(mode="after")
    def _all_is_used(self) -> Training:
        if self.warm_up and self.warm_up >= self.epochs:
            raise ValueError(f"`warm_up` of {self.warm_up} epochs ends behind the last of {self.epochs}. Shorten it")
        if self.stop_on != "select" and self.patience is None:
            raise ValueError("`stop_on` has no meaning without `patience`. Set it, or leave `stop_on` out")
        return self

    @property
    def watched(self) -> str | None:
        """What the schedule watches on validation, if it watches anything."""
        return self.schedule.settings.get("watch")

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain data, without schedule, warm-up and `stop_on` where they are off."""
        off = {"schedule", "warm_up", "stop_on"} - {
            key for key in type(self).model_fields if getattr(self, key) != type(self).model_fields[key].default
        }
        given = self.model_dump(mode="json", exclude={"optimizer", "schedule", *off})
        parts = {"optimizer": self.optimizer.brief(), "schedule": self.schedule.brief()}
        return given | {key: part for key, part in parts.items() if key not in off}


class Plan(Strict):
    """A recipe filled for a dataset: all that decides a run but the data and the seed, defaults written in.

    Attributes:
        modalities: name -> width of its features.
        graph: the graph builder, or None.
        tasks: label columns beside the emotion that heads judge -> how many classes each has.
        model: the stages by name, in the order the data meets them.
        balancing, loss: the parts.
        training: the loop's settings.
        normalise: modality -> how its features are brought to one scale; a modality not named is left as it is.
        learner: what is fitted without gradient descent instead of a model; then there are no stages.
        code: `kind/name` -> source of parts that are not the library's own.

    Example:
        >>> from mer_zoo.model import filling, recipe
        >>> plan = filling.fill(recipe.read("bilstm"), {"text": 8})
        >>> plan.modalities, list(plan.model), plan.loss.name
        ({'text': 8}, ['join', 'context', 'classify'], 'nll')
        >>> Plan.model_validate(plan.plain()) == plan
        True
    """

    modalities: dict[Name, int]
    graph: PartChoice | None = None
    tasks: dict[Name, int] = {}
    model: dict[Name, StageChoice] = {}
    balancing: PartChoice = PartChoice(name="none")
    loss: PartChoice = PartChoice(name="nll")
    training: Training = Training()
    normalise: dict[Name, Way] = {}
    learner: PartChoice | None = None
    code: dict[str, str] = {}

    def plain(self) -> dict[str, Any]:
        """Return the plan as plain data, as result files and model files hold it."""
        model = {
            "graph": self.graph and self.graph.plain(),
            "model": {name: stage.plain() for name, stage in self.model.items()},
            "balancing": self.balancing.plain(),
            "loss": self.loss.plain(),
            "training": self.training.plain(),
        }
        return {
            "modalities": dict(self.modalities),
            **(model if self.learner is None else {"learner": self.learner.plain()}),
            **({"normalise": dict(self.normalise)} if self.normalise else {}),
            **({"tasks": dict(self.tasks)} if self.tasks else {}),
            **({"code": dict(self.code)} if self.code else {}),
        }

    def parts(self) -> list[tuple[str, PartChoice]]:
        """Return every part with its kind, in the order the data meets them."""
        if self.learner is not None:
            return [("learner", self.learner)]
        graph = [("graph", self.graph)] if self.graph is not None else []
        stages = [(stage.kind, stage.part) for stage in self.model.values() if stage.part is not None]
        return [*graph, *stages, ("balancing", self.balancing), ("loss", self.loss)]
