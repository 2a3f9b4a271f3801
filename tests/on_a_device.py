"""An engine on a device that has no values: what would be wrong on a GPU is wrong there, on any machine."""

import numpy as np
import torch

from mer_zoo.batch import fakes
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.splits import Split
from mer_zoo.model import filling, recipe
from mer_zoo.training.capturing import union
from mer_zoo.training.engines import OneSeed, StackedSeeds
from mer_zoo.training.options import ComputeOptions
from mer_zoo.training.task import Task

MODALITIES = ("text", "audio", "visual")
WIDTHS = (24, 40, 16)  # together divisible by the heads of every recipe that joins them
SPLIT = Split(("talk 0", "talk 1", "talk 2"), ("talk 3",), ("talk 4",))


def talk(turns, number, widths, tasks):
    draw = np.random.default_rng(number)
    return Conversation(
        f"talk {number}",
        tuple(f"S{turn % 2}" for turn in range(turns)),
        draw.integers(6, size=turns),
        {m: draw.normal(size=(turns, width)).astype(np.float32) for m, width in widths.items()},
        targets={task: draw.integers(count, size=turns) for task, count in tasks.items()},
    )


def task(given, *changes, kernels=None, device=fakes.DEVICE):
    """Return a recipe, by name or written out, on five short dialogues, on a device."""
    file = recipe.read(given)
    asked = file.recipe.modalities
    modalities = list(asked) if isinstance(asked, (dict, list)) else MODALITIES
    widths = dict(zip(modalities, WIDTHS, strict=False))
    plan = filling.fill(recipe.read(given, (f"modalities=[{','.join(modalities)}]", *changes)), widths)
    dialogues = [talk(turns, number, widths, plan.tasks) for number, turns in enumerate((2, 3, 1, 2, 3))]
    data = Dataset("talks", dialogues, tuple("abcdef"), SPLIT._asdict())
    return Task(file.name, plan, data, SPLIT, device=device, kernels=kernels)


def train_and_judge(cell, seeds=(0,), epochs=(0,)):
    """Take a training step in each of some epochs, judge a batch, and read what is read after an epoch."""
    batches = [[[np.arange(3)]] * 1] * len(seeds)
    kind = OneSeed if len(seeds) == 1 else StackedSeeds
    engine = kind(cell, seeds, batches, ComputeOptions())
    shape = union([cell.train.shape(np.arange(3))])
    for epoch in epochs:
        engine.step.train()
        engine.step.balancing.on_epoch_start(epoch, engine._collect)
        index = engine._index([np.arange(3)] * len(seeds), shape)
        with fakes.on_the_device():
            told = engine._step(index)
        assert {x.device.type for x in told} == {fakes.DEVICE}
    engine.descent.after_epoch([0.0] * len(seeds))
    batch = cell.validation.batch([0])
    with fakes.on_the_device(), torch.no_grad():
        engine.judge(batch, loss=True)
        if engine._lambdas.places:
            engine._read(engine._lambdas)
    return engine
