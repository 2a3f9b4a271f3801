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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.data.conversation import MODALITIES, Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.model import filling, parity_mapping, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.parity_mapping import ParityMapping
from mer_zoo.model.plan import PartChoice, Plan
from mer_zoo.model.step import companions

LOGITS, GRADIENT, LOSS = 1e-5, (1e-6, 1e-4), 1e-5
"""Tolerances: absolute on logits; absolute plus relative on gradients; absolute on the loss of each step."""

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


@dataclass(frozen=True)
class Numbers:
    """What a parity file holds.

    Attributes:
        arrays: by name.
        meta: sizes, settings and remarks.
    """

    arrays: Mapping[str, Tensor]
    meta: Mapping[str, Any]

    def under(self, prefix: str, suffix: str = "") -> dict[str, Tensor]:
        """Return the arrays of names with a prefix and a suffix, by the name between the two."""
        names = [name for name in self.arrays if name.startswith(prefix) and name.endswith(suffix)]
        return {name[len(prefix) : len(name) - len(suffix)]: self.arrays[name] for name in names}

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
        gap = (ours.detach() - theirs).abs()
        share = gap / (absolute + relative * theirs.abs())
        share = torch.where(share.isnan(), torch.inf, share)  # what is not a number is not within tolerance
        self.found.append(Difference(quantity, float(gap.max()), float(share.max())))


def check(path: Path | str, kernels: type[Kernel] | None = None) -> list[Difference]:
    """Compare everything that a parity file holds with what our recipe computes.

    Args:
        path: the parity file.
        kernels: kernel class to force, or None for the usual choice.

    Raises:
        MerZooError: not a parity file; none of ours knows it; a weight of either side that the mapping leaves out, or
            that does not fit.
    """
    numbers, mapping = _read(Path(path))
    dialogues = _conversations(numbers, mapping)
    model, loss = _build(mapping, numbers, dialogues)
    mapping.load(model, numbers.under("weight."))
    _refuse_forgotten(mapping, numbers)
    corpus = Corpus(dialogues, model.builder, model.views, kernels=kernels)
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


def _read(path: Path) -> tuple[Numbers, ParityMapping]:
    if not path.is_file():
        raise MerZooError(f"{path}: no such file.")
    mapping = parity_mapping.find(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise MerZooError(
            f"{path}: not a parity file ({error}). It must be an .npz with a JSON entry 'meta'."
        ) from None
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind in "fi"}
    numbers = Numbers(tensors, meta)
    shapes = {name: list(array.shape) for name, array in numbers.under("weight.").items()}
    return numbers, parity_mapping.read(mapping, {**meta, "shape": shapes})


def _conversations(numbers: Numbers, mapping: ParityMapping) -> list[Conversation]:
    roles = tuple(str(i) for i in range(numbers.meta["n_speakers"]))
    inputs = {modality: [modality] for modality in MODALITIES} | dict(mapping.inputs)
    dialogues = []
    for i in range(len(numbers.meta["lengths"])):
        here = numbers.under(f"dialogue{i}.")
        features = {
            modality: torch.cat([here[name] for name in names], 1).numpy()
            for modality, names in inputs.items()
            if names[0] in here
        }
        speakers = tuple(str(s) for s in here["speaker"].tolist())
        targets = {task: here[name].numpy() for task, name in mapping.tasks.items()}
        labels = here["label"].numpy()
        dialogues.append(Conversation(f"dialogue{i}", speakers, labels, features, roles=roles, targets=targets))
    return dialogues


def _build(mapping: ParityMapping, numbers: Numbers, dialogues: list[Conversation]) -> tuple[Model, nn.Module]:
    widths, classes = dialogues[0].widths, numbers.meta["n_classes"]
    filled = plan(mapping, numbers.meta, widths)
    facts = Facts(widths, numbers.meta["n_speakers"], classes, (1,) * classes)
    return assemble(filled, facts), companions(filled, facts)[1]


def _refuse_forgotten(mapping: ParityMapping, numbers: Numbers) -> None:
    """Refuse a mapping that leaves out a published parameter which matters."""
    weights, gradients = numbers.under("weight."), numbers.under("grad.")
    live = [name for name in gradients if name not in numbers.dead]
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
    for step, theirs in enumerate(numbers.arrays["training.total_loss_per_step"]):
        optimizer.zero_grad()
        total = loss(model(batch), batch.labels)
        total.backward()
        findings.compare(f"loss of step {step}", total.double(), theirs, LOSS)
        if step == 0:
            findings.compare("loss.total", total, numbers.arrays["loss.total"], LOSS)
            _compare_gradients(findings, model, numbers, mapping)
        optimizer.step()
    after = numbers.under("training.", "_after")
    for name, buffer in model.named_buffers():
        if name in mapping.weights and set(parity_mapping.sources(mapping.weights[name])) <= after.keys():
            findings.compare(f"{name} after training", buffer, mapping.fit(name, after, buffer), LOGITS, GRADIENT[1])


def _compare_gradients(findings: _Findings, model: Model, numbers: Numbers, mapping: ParityMapping) -> None:
    """Compare the gradient of every parameter of ours; what the published model never learns has a gradient of zero."""
    published = {name: torch.zeros_like(array) for name, array in numbers.under("weight.").items()}
    gradients = numbers.under("grad.")
    for name, parameter in model.named_parameters():
        for source in parity_mapping.sources(mapping.weights[name]):
            if source not in gradients and source not in numbers.dead:
                raise MerZooError(f"parity file: it holds no gradient of {source}, which is mapped to {name}.")
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        findings.compare(f"gradient of {name}", ours, mapping.fit(name, {**published, **gradients}, ours), *GRADIENT)
    for expression in mapping.cancels:
        theirs = parity_mapping.evaluate(expression, gradients, "cancels")
        what = ", ".join(parity_mapping.sources(expression))
        findings.compare(f"gradient of what cancels in {what}", torch.zeros_like(theirs), theirs, GRADIENT[0])
