"""Numerical parity: a published model's weights in our recipe, and how far its numbers are from ours.

A parity file (`.npz`) holds what a published implementation computed on small random dialogues: inputs, weights,
logits, losses, gradients, and five optimiser steps. Which recipe it belongs to and which weight goes where is data:
`baselines/parity/<file stem>.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.data.archive import read_arrays
from mer_zoo.data.conversation import CLASSES, MODALITIES, Conversation
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.kernel.base import Kernel
from mer_zoo.model import filling, parity_mapping, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.budget import sketch
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.parity_mapping import ParityMapping
from mer_zoo.model.plan import PartChoice, Plan
from mer_zoo.model.step import companions
from mer_zoo.parts.loss.base import beside, seen_by
from mer_zoo.registry.faults import described, short

LOGITS, GRADIENT, LOSS = 1e-5, (1e-6, 1e-4), 1e-5
"""Tolerances: absolute on logits; absolute plus relative on gradients; absolute on the loss of each step."""

STEPS = 100
"""Optimiser steps at most."""

NUMBERS = [np.dtype(name) for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64")]
"""What an array of a parity file may hold; texts and others are remarks."""

TRAINED = 100 * LOGITS
"""Tolerance behind five steps of Adam, which divide by the root of tiny gradients: rounding may grow a hundredfold."""


@dataclass(frozen=True)
class Difference:
    """One compared quantity: its largest difference, as a share of what is tolerated (at most 1 passes)."""

    quantity: str
    difference: float
    share: float

    @property
    def passes(self) -> bool:
        """Whether it is within tolerance."""
        return self.share <= 1


class _Arrays(dict[str, Tensor]):
    """Arrays by name; one that is not there is named."""

    def __missing__(self, name: str) -> Tensor:
        raise MerZooError(f"parity file: it has no array of numbers '{short(name)}'.{nearest(name, self)}")


@dataclass(frozen=True)
class Numbers:
    """What a parity file holds.

    Attributes:
        arrays: by name.
        meta: sizes, settings and remarks.
    """

    arrays: Mapping[str, Tensor]
    meta: Mapping[str, Any]

    def under(self, prefix: str, suffix: str = "") -> Mapping[str, Tensor]:
        """Return the arrays of names with a prefix and a suffix, by the name between the two."""
        names = [name for name in self.arrays if name.startswith(prefix) and name.endswith(suffix)]
        return _Arrays({name[len(prefix) : len(name) - len(suffix)]: self.arrays[name] for name in names})

    @property
    def dead(self) -> set[str]:
        """Published parameters without effect on the loss."""
        listed = {*self.meta.get("dead_parameters_no_gradient", ()), *self.meta.get("frozen_parameters", ())}
        if "dead_parameters_no_gradient" in self.meta:
            return listed
        return listed | {name for name, gradient in self.under("grad.").items() if not gradient.any()}


@dataclass
class _Findings:
    """Collects compared quantities."""

    found: list[Difference] = field(default_factory=list)

    def compare(self, quantity: str, ours: Tensor, theirs: Tensor, absolute: float, relative: float = 0.0) -> None:
        """Add one."""
        if ours.shape != theirs.shape:
            raise MerZooError(
                f"parity file: {quantity} has shape {list(theirs.shape)}, but ours has {list(ours.shape)}."
            )
        gap = (ours.detach().cpu() - theirs).abs()
        share = gap / (absolute + relative * theirs.abs())
        share = torch.where(share.isnan(), torch.inf, share)  # what is not a number is not within tolerance
        self.found.append(Difference(quantity, float(gap.max()), float(share.max())))


def check(path: Path | str, kernels: type[Kernel] | None = None, device: str = "cpu") -> list[Difference]:
    """Compare everything that a parity file holds with what our recipe computes.

    Args:
        path: the parity file.
        kernels: kernel class to force, or None for the usual choice.
        device: where ours is computed.

    Raises:
        MerZooError: not a parity file; none of ours knows it; a weight of either side that the mapping leaves out, or
            that does not fit.
    """
    numbers, mapping = _read(Path(path))
    dialogues = _conversations(numbers, mapping)
    model, loss = _build(mapping, numbers, dialogues)
    mapping.load(model, numbers.under("weight."))
    _refuse_forgotten(mapping, numbers)
    model.to(device)
    loss.to(device)
    corpus = Corpus(dialogues, model.builder, model.views, kernels=kernels, device=device)
    batch = corpus.batch(range(len(dialogues)))
    findings = _Findings()
    _compare_logits(findings, model, batch, dialogues, numbers, mapping.logits)
    for i in range(len(dialogues)):
        if f"dialogue{i}.alone_logits" in numbers.arrays:
            with torch.no_grad():
                alone = model(corpus.batch([i])).logits
            theirs = numbers.arrays[f"dialogue{i}.alone_logits"]
            findings.compare(f"logits of dialogue {i} alone", alone, theirs, LOGITS)
    _train(findings, model, loss, batch, numbers, mapping)
    if any(name.endswith(".logits_after_training") for name in numbers.arrays):
        _compare_logits(findings, model, batch, dialogues, numbers, "logits_after_training", TRAINED)
    return findings.found


def plan(mapping: ParityMapping, meta: Mapping[str, Any], widths: Mapping[str, int]) -> Plan:
    """Return the recipe of a mapping, filled for a parity file.

    Args:
        mapping: of the file.
        meta: of the file.
        widths: modality -> width of its features.
    """
    overrides = [f"{key}={json.dumps(value)}" for key, value in mapping.settings.items()]
    filled = filling.fill(recipe.read(mapping.recipe, overrides), widths, "the parity file")
    if filled.loss.settings.get("class_weights", "none") == "none":
        return filled
    weighted = {**filled.loss.plain(), "class_weights": meta["class_weights"] or "none"}
    return filled.model_copy(update={"loss": PartChoice.model_validate(weighted)})


class _Meta(pydantic.BaseModel):
    """What every parity file tells; all else is for the formulas of its mapping."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)
    n_speakers: Annotated[int, pydantic.Field(ge=1, le=1000)]
    n_classes: Annotated[int, pydantic.Field(ge=1, le=CLASSES)]
    lengths: Annotated[list[Annotated[int, pydantic.Field(ge=1)]], pydantic.Field(min_length=1)]
    class_weights: list[float] | None = None
    dead_parameters_no_gradient: list[str] = []
    frozen_parameters: list[str] = []
    n_live_parameters_this_file: int | None = None


def _read(path: Path) -> tuple[Numbers, ParityMapping]:
    if not path.exists():
        raise MerZooError(f"{path}: no such file.")
    mapping = parity_mapping.find(path)
    arrays = read_arrays(path, "array")
    try:
        meta = json.loads(str(arrays.pop("meta")))
        _Meta.model_validate(meta)
    except pydantic.ValidationError as error:
        raise MerZooError(
            described(error, _Meta, meta, lambda *keys: ".".join(map(str, (path, "meta", *keys))))
        ) from None
    except (ValueError, KeyError, RecursionError) as error:
        raise MerZooError(
            f"{path}: not a parity file ({short(str(error))}). It must be an .npz with a JSON entry 'meta'."
        ) from None
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    tensors = {name: torch.from_numpy(array) for name, array in native.items() if array.dtype in NUMBERS}
    numbers = Numbers(_Arrays(tensors), meta)
    shapes = {name: list(array.shape) for name, array in numbers.under("weight.").items()}
    return numbers, parity_mapping.read(mapping, {**meta, "shape": shapes})


def _conversations(numbers: Numbers, mapping: ParityMapping) -> list[Conversation]:
    speakers = numbers.meta["n_speakers"]
    roles = tuple(str(i) for i in range(speakers))
    inputs = {modality: [modality] for modality in MODALITIES} | dict(mapping.inputs)
    dialogues = []
    for i, length in enumerate(numbers.meta["lengths"]):
        here = numbers.under(f"dialogue{i}.")
        names = {modality: arrays for modality, arrays in inputs.items() if arrays[0] in here}
        for name in [name for arrays in names.values() for name in arrays]:
            _refuse_other(here[name].dim() == 2 and len(here[name]) == length, f"dialogue{i}.{name}", here[name])
        features = {
            modality: torch.cat([here[name] for name in arrays], 1).numpy() for modality, arrays in names.items()
        }
        for name in ("speaker", "label", *mapping.tasks.values()):
            whole = not here[name].is_floating_point() and here[name].shape == (length,)
            _refuse_other(whole, f"dialogue{i}.{name}", here[name])
        for name, count in (("speaker", speakers), ("label", numbers.meta["n_classes"])):
            if not 0 <= int(here[name].min()) <= int(here[name].max()) < count:
                raise MerZooError(f"parity file: dialogue{i}.{name} must be from 0 to {count - 1}.")
        names_of_speakers = tuple(str(s) for s in here["speaker"].tolist())
        targets = {task: here[name].numpy() for task, name in mapping.tasks.items()}
        labels = here["label"].numpy()
        dialogues.append(
            Conversation(f"dialogue{i}", names_of_speakers, labels, features, roles=roles, targets=targets)
        )
    return dialogues


def _refuse_other(fits: bool, name: str, array: Tensor) -> None:
    if not fits:
        raise MerZooError(
            f"parity file: {name} has shape {list(array.shape)} and type {array.dtype}, unlike its dialogue."
        )


def _build(mapping: ParityMapping, numbers: Numbers, dialogues: list[Conversation]) -> tuple[Model, nn.Module]:
    widths, classes = dialogues[0].widths, numbers.meta["n_classes"]
    filled = plan(mapping, numbers.meta, widths)
    facts = Facts(widths, numbers.meta["n_speakers"], classes, (1,) * classes)
    weights = numbers.under("weight.")
    sketch(filled, facts, sum(array.numel() for array in weights.values()), len(weights))
    return assemble(filled, facts), companions(filled, facts)[1]


def _refuse_forgotten(mapping: ParityMapping, numbers: Numbers) -> None:
    """Refuse a mapping that leaves out a published parameter which matters."""
    weights, gradients, dead = numbers.under("weight."), numbers.under("grad."), numbers.dead
    live = [name for name in gradients if name not in dead]
    if forgotten := mapping.forgotten(weights, live):
        raise MerZooError(
            f"parity mapping: no parameter of ours belongs to {', '.join(forgotten)}, though the published model "
            "learns it. Map it, or list it under `cancels` if it changes nothing."
        )
    count, told = sum(weights[name].numel() for name in live), numbers.meta.get("n_live_parameters_this_file")
    if told is not None and count != told:
        raise MerZooError(
            f"parity file: it tells of {told} parameters with effect, but holds gradients of {count}; some are missing."
        )


def _compare_logits(
    findings: _Findings,
    model: Model,
    batch: ConversationBatch,
    dialogues: list[Conversation],
    numbers: Numbers,
    name: str,
    tolerance: float = LOGITS,
) -> None:
    model.eval()
    with torch.no_grad():
        logits = model(batch).logits.split([len(dialogue) for dialogue in dialogues])
    when = " after training" if tolerance == TRAINED else ""
    for i, ours in enumerate(logits):
        findings.compare(f"logits of dialogue {i}{when}", ours, numbers.arrays[f"dialogue{i}.{name}"], tolerance)


def _train(
    findings: _Findings,
    model: Model,
    loss: nn.Module,
    batch: ConversationBatch,
    numbers: Numbers,
    mapping: ParityMapping,
) -> None:
    """Compare gradients, the loss of every step, and what is left in the buffers."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-5)
    losses = numbers.arrays["training.total_loss_per_step"]
    if losses.dim() != 1 or len(losses) > STEPS:
        raise MerZooError(
            f"parity file: losses have shape {list(losses.shape)}; want one for each of {STEPS} steps at most."
        )
    for step, theirs in enumerate(losses):
        optimizer.zero_grad()
        total = loss(model(batch), batch.labels, **beside(seen_by(loss), batch.layout, batch.targets))
        total.backward()
        findings.compare(f"loss of step {step}", total.double(), theirs, LOSS)
        if step == 0:
            findings.compare("loss.total", total, numbers.arrays["loss.total"], LOSS)
            _compare_gradients(findings, model, numbers, mapping)
        optimizer.step()
    after = numbers.under("training.", "_after")
    for name, buffer in model.named_buffers():
        if name in mapping.weights and set(parity_mapping.sources(mapping.weights[name])) <= after.keys():
            findings.compare(
                f"{name} after training", buffer, mapping.fit(name, after, buffer.cpu()), LOGITS, GRADIENT[1]
            )


def _compare_gradients(findings: _Findings, model: Model, numbers: Numbers, mapping: ParityMapping) -> None:
    """Compare the gradient of every parameter of ours; what the published model never learns has a gradient of zero."""
    published = {name: torch.zeros_like(array) for name, array in numbers.under("weight.").items()}
    gradients = numbers.under("grad.")
    for name, parameter in model.named_parameters():
        for source in parity_mapping.sources(mapping.weights[name]):
            if source not in gradients and source not in numbers.dead:
                raise MerZooError(f"parity file: it holds no gradient of {source}, which is mapped to {name}.")
        ours = (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).cpu()
        findings.compare(f"gradient of {name}", ours, mapping.fit(name, {**published, **gradients}, ours), *GRADIENT)
    for expression in mapping.cancels:
        theirs = parity_mapping.evaluate(expression, gradients, "cancels")
        what = ", ".join(parity_mapping.sources(expression))
        findings.compare(f"gradient of what cancels in {what}", torch.zeros_like(theirs), theirs, GRADIENT[0])
