"""A dress rehearsal: one step of a freshly assembled model, so that parts which do not fit are refused at assembly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mer_zoo import registry
from mer_zoo.batch.batch import ConversationBatch
from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.parts.balancing.base import Balancing

if TYPE_CHECKING:
    from mer_zoo.model.model import Facts, Flow, Model

_passed: set[str] = set()


def rehearse(model: Model, filled: Mapping[str, Any], facts: Facts) -> None:
    """Run every stage, the loss and the balancing of a recipe once on two tiny dialogues; once per recipe and process.

    The model stays as it was. Call it within `torch.random.fork_rng`.

    Raises:
        MerZooError: a stage, the loss or the balancing refuses its inputs or fails on them, with its place.
    """
    key = json.dumps([filled, repr(facts)], sort_keys=True, default=str)
    if key in _passed:
        return
    was_training = model.training
    model.eval()  # nothing random, nothing remembered
    batch = _two_dialogues(model, facts)
    _walk(model, filled, batch)
    balancing, loss = companions(model, filled, facts)
    _named("balancing", filled, lambda: balancing.on_epoch_start(0, lambda count: _collect(model, batch)))
    step(model, balancing, loss, batch, filled)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    _passed.add(key)


def companions(model: Model, filled: Mapping[str, Any], facts: Facts) -> tuple[Balancing, Any]:
    """Make the balancing strategy and the loss that go with a model."""
    known = {
        "modalities": model.modalities,
        "classes": facts.classes,
        "class_counts": facts.class_counts or (1,) * facts.classes,
    }
    made = []
    for kind in ("balancing", "loss"):
        settings = dict(filled[kind])
        made.append(registry.build(registry.find(kind, settings.pop("name"), kind), settings, known, kind))
    return made[0], made[1]


def step(model: Model, balancing: Balancing, loss: Any, batch: ConversationBatch, filled: Mapping[str, Any]) -> Tensor:
    """Compute loss and gradients of one batch, faults named by whose they are; returns the loss."""
    output = _named("balancing", filled, lambda: balancing.forward(model.run(balancing), batch))
    labels = _named("balancing", filled, lambda: balancing.on_labels(batch.labels))
    plain = _named("loss", filled, lambda: loss(output, labels))
    total = _named("balancing", filled, lambda: balancing.total_loss(plain, output, labels))
    owned = model.modality_parameters()
    _named("balancing", filled, lambda: balancing.backward(total, output, labels, owned))
    _named("balancing", filled, lambda: balancing.after_backward(owned))
    return total.detach()


def _two_dialogues(model: Model, facts: Facts) -> ConversationBatch:
    draw = np.random.default_rng(0)
    dialogues = [
        Conversation(
            f"rehearsal {length}",
            tuple(f"S{i % max(1, min(2, facts.speakers))}" for i in range(length)),
            draw.integers(facts.classes, size=length),
            {m: draw.normal(size=(length, width)) for m, width in facts.widths.items()},
        )
        for length in (3, 2)
    ]
    try:
        return Corpus(dialogues, model.builder, model.specs).batch([0, 1])
    except MerZooError as error:
        raise MerZooError(f"graph: {error}") from None


def _walk(model: Model, filled: Mapping[str, Any], batch: ConversationBatch) -> Flow:
    from mer_zoo.model.model import Flow

    flow = Flow(batch, {m: batch.features[m] for m in model.modalities})
    with torch.no_grad():
        for name, stage in model.stages.items():
            flow = _named(f"model.{name}", filled, lambda stage=stage, flow=flow: stage(flow))
    return flow


def _collect(model: Model, batch: ConversationBatch) -> list:
    with torch.no_grad():
        states = model.encode(batch).states
    return [({m: states[m] for m in model.modalities}, batch.labels)]


def _named(place: str, filled: Mapping[str, Any], act: Any) -> Any:
    """Run; an error is told with its place in the recipe and the part's name."""
    try:
        return act()
    except MerZooError as error:
        text = str(error)
        raise MerZooError(text if text.startswith(f"{place}:") else f"{place}: {text}") from None
    except Exception as error:
        entry: Any = filled
        for key in place.split("."):
            entry = entry[key]
        kind = next((k for k in entry if k in registry.KINDS), place)
        part = entry[kind]["name"] if kind in entry else entry["name"]
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise MerZooError(
            f"{place}: {kind}/{part} fails here, on two tiny dialogues: {reason}. Do the stages before give what it "
            f"takes? `mer-zoo check {kind}/{part}` tells whether the part itself is sound."
        ) from error
