"""From a plan to a model that is known to run: weights drawn from a seed, and one step on two random dialogues."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mer_zoo.batch.output import States
from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.plan import Plan
from mer_zoo.model.step import Step, companions, explained


def assemble(plan: Plan, facts: Facts, seed: int = 0) -> Model:
    """Make a model with weights drawn from a seed, leaving torch's global generator as it was.

    Args:
        plan: what `filling.fill` returns.
        facts: of the data.
        seed: decides the weights.

    Raises:
        MerZooError: stages, loss or balancing that do not fit together, found by a step on two random dialogues.

    Example:
        >>> from mer_zoo.model import filling, recipe
        >>> plan = filling.fill(recipe.read("bilstm"), {"text": 8})
        >>> model = assemble(plan, Facts({"text": 8}, speakers=2, classes=6), seed=1)
        >>> sum(p.numel() for p in model.parameters()) > 0
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(plan, facts)
        rehearse(model, plan, facts)
    return model


def rehearse(model: Model, plan: Plan, facts: Facts) -> None:
    """Run a step of a model on two random dialogues, one as long as the longest; parts that do not fit are refused.

    Raises:
        MerZooError: a stage, the loss or the balancing refuses its inputs or fails on them, with its place.
    """
    step = Step(model, *companions(plan, facts)).eval()  # nothing random, nothing remembered
    batch = _two_dialogues(model, facts)

    def collect(count: int) -> list[tuple[States, Tensor]]:
        with torch.no_grad():
            return [(model.encode(batch).states, batch.labels)]

    try:
        step.balancing.on_epoch_start(0, collect)
        step.backward(*step(batch))
    except Exception as error:
        known = isinstance(error, MerZooError)
        raise explained(error, step, plan, ", on two random dialogues") from (None if known else error)
    model.zero_grad(set_to_none=True)
    model.train()


def _two_dialogues(model: Model, facts: Facts) -> ConversationBatch:
    draw = np.random.default_rng(0)
    dialogues = [
        Conversation(
            f"rehearsal {length}",
            tuple(f"S{i % max(1, min(2, facts.speakers))}" for i in range(length)),
            draw.integers(facts.classes, size=length),
            {m: draw.normal(size=(length, width)) for m, width in facts.widths.items()},
            targets={task: draw.integers(classes, size=length) for task, classes in model.plan.tasks.items()},
        )
        for length in (max(3, facts.longest), 2)
    ]
    try:
        return Corpus(dialogues, model.builder, model.views).batch([0, 1])
    except MerZooError as error:
        raise MerZooError(f"graph: {error}") from None
