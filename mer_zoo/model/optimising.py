"""Optimisers and schedules of the learning rate: what `training.optimizer` and `training.schedule` name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import lr_scheduler

from mer_zoo.errors import MerZooError, at, nearest
from mer_zoo.model.plan import PartChoice, Training
from mer_zoo.registry.by_path import Family
from mer_zoo.registry.faults import raised
from mer_zoo.results import metrics

LOSS = "loss"
OPTIMIZERS = Family(
    "optimizer",
    {"adam": "torch.optim:Adam", "adamw": "torch.optim:AdamW", "sgd": "torch.optim:SGD"},
    ("params", "lr", "weight_decay", "maximize", "foreach", "capturable", "differentiable", "fused"),
)
"""Those with a short name take their steps number by number, so one can serve all stacked seeds."""
SCHEDULES = Family(
    "schedule",
    {
        "cosine": "torch.optim.lr_scheduler:CosineAnnealingLR",
        "linear": "torch.optim.lr_scheduler:LinearLR",
        "plateau": "torch.optim.lr_scheduler:ReduceLROnPlateau",
    },
    ("optimizer", "last_epoch", "verbose", "mode"),
)


def filled(training: Training, locate: Callable[..., str], code: dict[str, str]) -> Training:
    """Return the training settings with every default of its optimiser and schedule; all of it is tried out once.

    An optimiser with torch's defaults alone stays a bare name.

    Args:
        training: as the recipe has it.
        locate: gives the place of a setting in the recipe.
        code: takes up digests of what is not the library's nor torch's.

    Raises:
        MerZooError: an unknown name or setting, or what cannot be used for training.

    Example:
        >>> training = Training.model_validate({"schedule": "cosine", "epochs": 20, "warm_up": 2})
        >>> filled(training, lambda *path: "", {}).schedule.plain()
        {'name': 'cosine', 'T_max': 18, 'eta_min': 0.0}
    """
    place, given = locate("optimizer"), training.optimizer
    for key, ours in (("lr", "learning_rate"), ("weight_decay", "weight_decay")):
        if key in given.settings:
            raise MerZooError(f"{locate('optimizer', key)}: write it as `training.{ours}`, beside the optimizer.")
    name = OPTIMIZERS.canonical(given.name, place)
    _refuse_other(OPTIMIZERS.find(name, place), torch.optim.Optimizer, OPTIMIZERS, name, place)
    settings = OPTIMIZERS.fill(name, given.settings, place, partial(locate, "optimizer"))
    if settings == OPTIMIZERS.fill(name, {}):
        settings = {}
    schedule = _schedule(training, locate)
    select = _criterion(training.select, locate("select"))
    chosen = {"optimizer": PartChoice(name=name, **settings), "schedule": schedule, "select": select}
    training = training.model_copy(update=chosen)
    named = [(OPTIMIZERS, name), (SCHEDULES, schedule.name), (metrics.FAMILY, select)]
    for family, used in (*named, (metrics.FAMILY, training.watched)):
        if used not in (LOSS, "none", None) and (digest := family.code(used)) is not None:
            code[f"{family.what}/{used}"] = digest
    Schedule(training, at(place), locate("schedule"))
    return training


def _schedule(training: Training, locate: Callable[..., str]) -> PartChoice:
    given, place = training.schedule, locate("schedule")
    if given.name == "none":
        if given.settings:
            raise MerZooError(f"{place}: schedule/none has no settings. Leave them out, or name a schedule.")
        return given
    name = SCHEDULES.canonical(given.name, place)
    made = SCHEDULES.find(name, place)
    _refuse_other(made, lr_scheduler.LRScheduler, SCHEDULES, name, place)
    settings, own = given.settings, {}
    if watches(made):
        own["watch"] = _criterion(settings.pop("watch", LOSS), locate("schedule", "watch"))
    rest = training.epochs - training.warm_up
    ends: dict[str, dict[str, Any]] = {"cosine": {"T_max": rest}, "linear": {"start_factor": 1.0, "end_factor": 0.0}}
    ends["linear"]["total_iters"] = rest
    settings = SCHEDULES.fill(name, ends.get(name, {}) | settings, place, partial(locate, "schedule"))
    return PartChoice(name=name, **own, **settings)


def _criterion(name: Any, place: str) -> str:
    """Return `loss`, or a score that there is."""
    if name == LOSS:
        return LOSS
    if not isinstance(name, str) or (name not in metrics.SCORES and "." not in name and ":" not in name):
        known = nearest(str(name), (*metrics.SCORES, LOSS))
        raise MerZooError(f"{at(place)}no score named '{name}'.{known} One of your own is named 'module:function'.")
    name = metrics.FAMILY.canonical(name, place)
    if not callable(metrics.FAMILY.find(name, place)):
        raise MerZooError(f"{at(place)}'{name}' is not a function of the confusion matrix.")
    return name


def _refuse_other(made: Any, base: Any, family: Family, name: str, place: str) -> None:
    """Refuse what is no optimiser or no schedule, or one that needs more than training gives."""
    fits = inspect.isclass(made) and issubclass(made, base)
    if not fits:
        raise MerZooError(f"{at(place)}{family.what} '{name}' is not a class below torch's {base.__name__}.")
    step = inspect.signature(made.step).parameters
    needs = [p.name for p in list(step.values())[1:] if p.default is p.empty and p.name != "metrics"]
    if needs:
        raise MerZooError(
            f"{at(place)}{family.what} '{name}' wants `{needs[0]}` in every step, which training does not give. Take "
            "another."
        )


def watches(schedule: Any) -> bool:
    """Return whether a schedule's step takes a value of the validation split."""
    return "metrics" in inspect.signature(schedule.step).parameters


def optimizer_of(training: Training, weights: Sequence[Tensor], rate: float | Tensor) -> torch.optim.Optimizer:
    """Return the optimiser of weights.

    Args:
        training: filled.
        weights: leaves.
        rate: learning rate; a tensor where it changes behind a recorded step.

    Raises:
        MerZooError: the settings are refused by the optimiser.
    """
    name = training.optimizer.name
    made = OPTIMIZERS.find(name)
    takes = inspect.signature(made).parameters
    options: dict[str, Any] = {"lr": rate, **training.optimizer.settings}
    if "weight_decay" in takes:
        options["weight_decay"] = training.weight_decay
    elif training.weight_decay:
        raise MerZooError(f"optimizer '{name}' has no weight decay. Set `training.weight_decay` to 0.")
    if "lr" not in takes:
        raise MerZooError(f"optimizer '{name}' takes no `lr`, the learning rate. Take another.")
    if weights[0].device.type != "cpu" and "capturable" in takes:
        options["capturable"] = True
    if name in OPTIMIZERS.names:
        options["fused"] = True
    try:
        return made(list(weights), **options)
    except Exception as error:
        raise MerZooError(f"optimizer '{name}' cannot be made of these settings: {raised(error)}") from error


class Schedule:
    """The learning rate of one seed, epoch by epoch, on the host: warm-up, then the schedule.

    The schedule acts on a twin of the optimiser that holds one number, so it never waits for the device.

    Args:
        training: filled.
        lead: put in front of errors of the optimiser.
        place: of the schedule.

    Raises:
        MerZooError: settings are refused, or the schedule changes more than the learning rate.

    Example:
        >>> rate = Schedule(filled(Training(schedule=PartChoice(name="linear"), epochs=4), lambda *path: "", {}))
        >>> [round(rate.after_epoch(0.0), 6) for _ in range(3)]
        [0.00075, 0.0005, 0.00025]
    """

    def __init__(self, training: Training, lead: str = "", place: str = "training.schedule") -> None:
        self.training, self.place = training, place
        try:
            self.twin = optimizer_of(training, [torch.zeros(1)], training.learning_rate)
        except MerZooError as error:
            raise MerZooError(f"{lead}{error}") from error
        self.group = self.twin.param_groups[0]
        self.others = {key: value for key, value in self.group.items() if key not in ("lr", "params")}
        self.epochs, self.main = 0, None
        self.warm: lr_scheduler.LRScheduler | None = None
        if training.warm_up:
            share = 1 / (training.warm_up + 1)
            self.warm = lr_scheduler.LinearLR(self.twin, start_factor=share, total_iters=training.warm_up)
        else:
            self._begin()

    @property
    def rate(self) -> float:
        """The learning rate of the next epoch."""
        return float(self.group["lr"])

    def after_epoch(self, watched: float) -> float:
        """Return the learning rate of the next epoch, given what the schedule watches."""
        self.epochs += 1
        if self.epochs <= self.training.warm_up:
            assert self.warm is not None
            self._do(self.warm.step)
            if self.epochs == self.training.warm_up:
                self.group["lr"] = self.training.learning_rate
                self._begin()
        elif self.main is not None:
            self._do(partial(self.main.step, watched) if watches(type(self.main)) else self.main.step)
        return self.rate

    def _begin(self) -> None:
        choice = self.training.schedule
        if choice.name == "none":
            return
        made = SCHEDULES.find(choice.name)
        settings = {key: value for key, value in choice.settings.items() if key != "watch"}
        if "mode" in inspect.signature(made).parameters and watches(made):
            settings["mode"] = "min" if self.training.watched == LOSS else "max"
        self.main = self._do(lambda: made(self.twin, **settings))

    def _do(self, act: Callable[[], Any]) -> Any:
        """Run what the schedule does, and refuse it if it does more than set a learning rate."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")  # the twin takes none
                result = act()
        except Exception as error:
            raise MerZooError(f"{self.place}: '{self.training.schedule.name}' fails: {raised(error)}") from error
        for key, value in self.others.items():
            if self.group[key] != value:
                raise MerZooError(
                    f"{self.place}: '{self.training.schedule.name}' changes `{key}` besides the learning rate, which "
                    "recorded steps would not see. Switch that off in its settings, or take another schedule."
                )
        return result
