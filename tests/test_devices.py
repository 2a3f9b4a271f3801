"""Whole steps touch nothing but the device: every recipe, strategy, loss and kernel, as if there were a GPU."""

import sys

import pytest
import torch
from on_a_device import task, train_and_judge
from torch import nn

from mer_zoo import registry
from mer_zoo.batch import fakes
from mer_zoo.batch.fakes import Forbidden
from mer_zoo.model import recipe
from mer_zoo.training.engines import why_not_stacked

STAGED = [name for name in recipe.names() if recipe.read(name).recipe.learner is None]


@pytest.fixture(autouse=True)
def device_has_fused_optimisers(monkeypatch):
    """Have torch take the device for one that has what GPUs have."""
    modules = [module for name, module in sys.modules.items() if name.startswith("torch.optim.")]
    for asked in ("_get_fused_kernels_supported_devices", "_get_capturable_supported_devices"):
        known = [*getattr(sys.modules["torch.optim.optimizer"], asked)(), fakes.DEVICE]
        for module in modules:
            monkeypatch.setattr(module, asked, lambda *_, known=known: known, raising=False)


@pytest.mark.parametrize("name", STAGED)
def test_a_step_of_every_recipe(name):
    train_and_judge(task(name))


@pytest.mark.parametrize("name", [name for name in STAGED if "/" not in name])
def test_a_step_of_stacked_seeds(name):
    cell = task(name)
    if (reason := why_not_stacked(cell)) is not None:
        pytest.skip(reason)
    train_and_judge(cell, seeds=(0, 1))


HEADS = {
    "title": "Has what strategies and losses ask for: modalities with weights and heads of their own",
    "modalities": "all",
    "model": {
        "project": {"encoder": {"name": "linear", "out_width": 8}},
        "classify": {"head": "linear"},
        "join": {"fusion": "logit_sum"},
    },
    "balancing": "none",
    "loss": "nll",
    "training": {"learning_rate": 0.01, "epochs": 3, "dialogues_per_batch": 3},
}


def names(kind):
    return [card.name for card in registry.cards() if card.kind == kind and "/" not in card.name]


@pytest.mark.parametrize("stacked", [False, True], ids=["alone", "stacked"])
@pytest.mark.parametrize("name", names("balancing"))
def test_a_step_of_every_strategy_before_its_warm_up_ends_and_after(name, stacked):
    cell = task(HEADS, f"balancing={name}")
    if stacked and (reason := why_not_stacked(cell)) is not None:
        pytest.skip(reason)
    train_and_judge(cell, seeds=(0, 1) if stacked else (0,), epochs=(0, 99))


@pytest.mark.parametrize("name", ["ogm_ge", "pmr"])
def test_a_strategy_that_rests_rests_on_the_device(name):
    train_and_judge(task(HEADS, f"balancing={{name: {name}, epochs: 0}}"), epochs=(0, 1))


LOSSES = {"multi_task": "graphsmile/sentiment", "joint": "factorial_chains", "focal_contrastive": "multiemo"}
"""Losses that ask for more than heads, with a recipe that has it."""


@pytest.mark.parametrize("name", names("loss"))
def test_a_step_of_every_loss(name):
    train_and_judge(task(LOSSES.get(name, HEADS), *(() if name in LOSSES else (f"loss={name}",))))


@pytest.mark.parametrize(
    "name", [name for name in names("kernel") if name != "dgl"]
)  # dgl has no device without values
@pytest.mark.parametrize("of", ["mmgcn", "speaker_nodes", "cogmen"])
def test_a_step_of_every_kernel(of, name):
    train_and_judge(task(of, kernels=registry.load(registry.find("kernel", name))))


@pytest.mark.parametrize(
    "change", ["optimizer=adamw", "optimizer=torch.optim.NAdam", "schedule=cosine", "warm_up=1", "clip=1.0"]
)
@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["alone", "stacked"])
def test_a_step_of_every_descent(change, seeds):
    train_and_judge(task("mlp", f"training.{change}", "training.epochs=3"), seeds)


class Elsewhere(nn.Module):
    """What is wrong on a GPU in one way each."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.kept, self.weight = fault, torch.ones(3), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.fault(self, x) * self.weight


@pytest.mark.parametrize(
    "fault",
    [
        lambda part, x: x * part.kept,
        lambda part, x: x * torch.ones(()),
        lambda part, x: x[torch.arange(2)],
        lambda part, x: x[[0, 1]],
        lambda part, x: x * torch.tensor(2.0, device=x.device),
        lambda part, x: x * x.sum().item(),
        lambda part, x: x[x.sum(-1) > 0],
        lambda part, x: x.repeat_interleave((x.sum(-1) > 0).long(), 0),
        lambda part, x: x if x.sum() > 0 else -x,
        lambda part, x: x * x.new_tensor([1.0, 2.0, 3.0]),
        lambda part, x: x.cpu().to(x.device),
    ],
    ids=[
        *("attribute", "zero_dim", "index", "list", "number", "item"),
        *("mask", "repeat", "branch", "new_tensor", "round_trip"),
    ],
)
def test_what_a_device_cannot_do_is_caught(fault):
    module, x = Elsewhere(fault).to(fakes.DEVICE), torch.ones(4, 3, device=fakes.DEVICE)
    with pytest.raises((Forbidden, RuntimeError, NotImplementedError)), fakes.on_the_device():
        module(x).sum().backward()
    with pytest.raises((Forbidden, RuntimeError, NotImplementedError)):
        fakes.run(Elsewhere(fault), (torch.ones(4, 3),))
