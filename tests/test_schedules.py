"""Learning rates, optimisers and scores: by name and by path, alone and stacked, recorded, refused."""

import math

import numpy as np
import pytest
import torch
import yaml

from mer_zoo.data.splits import split_dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe, saving
from mer_zoo.model.plan import Plan
from mer_zoo.results.metrics import value_of
from mer_zoo.results.result import read_result
from mer_zoo.training.experiment import Experiment, keep
from mer_zoo.training.loop import train, train_stacked
from mer_zoo.training.options import ComputeOptions
from mer_zoo.training.task import Task

MODEL = {
    "title": "quick",
    "model": {"join": {"fusion": "concat"}, "classify": {"head": {"name": "mlp", "hidden": 16, "dropout": 0.0}}},
}
OWN = '''"""An optimiser, a schedule and scores of a user's own."""
import pathlib
import torch

pathlib.Path(__file__).with_name("was_run").open("a").write("x")


class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr, *, damp: float = 0.0):
        super().__init__(params, {"lr": lr, "damp": damp})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            longest = max(p.grad.norm() for p in group["params"])
            for p in group["params"]:
                p -= group["lr"] * (1 - group["damp"]) * p.grad / longest


class Halve(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        return [group["lr"] * (0.5 if self.last_epoch else 1) for group in self.optimizer.param_groups]


def constant(confusion):
    return 0.5


def hits(confusion):
    return confusion.trace() / 1000


def nothing(confusion):
    return float("nan")
'''
RATE = 0.01


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


def filled(small, epochs=6, **training):
    settings = {"learning_rate": RATE, "epochs": epochs, "dialogues_per_batch": 6, **training}
    file = recipe.RecipeFile("quick", recipe.Recipe.model_validate({**MODEL, "training": settings}))
    return filling.fill(file, small.widths)


def task(small, epochs=6, device="cpu", **training):
    return Task("quick", filled(small, epochs, **training), small, split_dataset(small), device=device)


def rates(result):
    return [round(noted["learning_rate"] / RATE, 6) for noted in result.history]


SHAPES = {
    "cosine": ("cosine", 0, [(1 + math.cos(math.pi * e / 6)) / 2 for e in range(6)]),
    "linear": ("linear", 0, [1 - e / 6 for e in range(6)]),
    "warm-up alone": ("none", 3, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1]),
    "warm-up and linear": ("linear", 2, [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4]),
    "warm-up and torch's": (
        {"name": "torch.optim.lr_scheduler.StepLR", "step_size": 2},
        1,
        [0.5, 1, 1, 0.1, 0.1, 0.01],
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SHAPES)
def test_the_rate_follows_its_curve(small, name):
    schedule, warm_up, expected = SHAPES[name]
    assert rates(train(task(small, schedule=schedule, warm_up=warm_up), 0).result) == pytest.approx(expected, abs=1e-5)


def test_a_plateau_drops_the_rate_of_a_constant_metric(small, own):
    plateau = {"name": "plateau", "watch": f"{own}:constant", "patience": 1}
    assert rates(train(task(small, schedule=plateau), 0).result) == [1, 1, 1, 0.1, 0.1, 0.01]
    falling = {"name": "plateau", "patience": 1}  # of the loss, which falls in every epoch
    assert set(rates(train(task(small, schedule=falling), 0).result)) == {1}


def test_a_changed_rate_is_the_step_that_is_taken(small):
    """Plain descent at a rate that a schedule multiplies by 0 leaves the weights as they are."""
    still = {"name": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "gamma": 0.0}
    whole = {"dialogues_per_batch": 24, "learning_rate": 0.5, "optimizer": "sgd"}
    losses = [h["train_loss"] for h in train(task(small, 4, schedule=still, **whole), 0).result.history]
    assert losses[0] != losses[1]
    assert losses[0] - losses[1] > 0.01
    assert losses[1:3] == pytest.approx(losses[2:], abs=1e-5)


WAYS = {
    "cosine": {"schedule": "cosine"},
    "a plateau": {"schedule": {"name": "plateau", "watch": "accuracy", "patience": 0, "factor": 0.5}},
    "amsgrad": {"optimizer": {"name": "adamw", "amsgrad": True}, "schedule": "linear", "warm_up": 2},
    "torch's by path": {"optimizer": "torch.optim.RAdam", "clip": 0.5},
    "one's own": {"optimizer": {"name": "{own}:Signs", "damp": 0.5}, "schedule": "{own}:Halve"},
}


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_stacked_seeds_are_what_they_are_alone(small, own, way, capture, computed_on):
    settings = yaml.safe_load(yaml.safe_dump(WAYS[way]).replace("{own}", own))
    cell, options = task(small, device=computed_on, **settings), ComputeOptions(capture=capture)
    stacked = [outcome.result for outcome in train_stacked(cell, [0, 1, 2], options=options)]
    for result in stacked:
        alone = train(cell, result.seed, options=options).result
        assert alone.run == result.run
        assert [h.get("learning_rate") for h in alone.history] == [h.get("learning_rate") for h in result.history]
        for key in ("train_loss", "validation_weighted_f1"):
            assert [h[key] for h in alone.history] == pytest.approx([h[key] for h in result.history], abs=1e-4)
    if way == "a plateau":  # every seed has a state of its own
        assert len({tuple(h["learning_rate"] for h in result.history) for result in stacked}) > 1


@pytest.mark.parametrize("way", ["cosine", "a plateau"])
def test_a_rate_that_recorded_steps_read_is_the_same(small, way, computed_on):
    """Where steps are recorded the rate is a tensor, changed in place; padding to fixed shapes changes nothing."""
    plain, recorded = (
        train(task(small, device=computed_on, **WAYS[way]), 0, options=ComputeOptions(capture=capture)).result.history
        for capture in (False, True)
    )
    assert [h["train_loss"] for h in plain] == pytest.approx([h["train_loss"] for h in recorded], abs=1e-4)


def test_the_epoch_of_the_lowest_loss_is_chosen(small):
    cell = task(small, 40, select="loss", learning_rate=0.1)
    outcome = train(cell, 0, protocol="test-oracle")
    losses = [h["validation_loss"] for h in outcome.result.history]
    assert outcome.result.chosen_epoch == int(np.argmin(losses)) < 39
    batch = cell.validation.batch(range(len(cell.validation)))
    expected = torch.nn.functional.cross_entropy(outcome.model.eval()(batch).logits, batch.labels)
    assert min(losses) == pytest.approx(expected.item(), abs=1e-5)


def test_patience_can_wait_for_the_loss_too(small, own):
    settings = {"select": f"{own}:constant", "patience": 2}
    assert train(task(small, 9, **settings), 0).result.epochs_run == 3
    both = train(task(small, 9, **settings, stop_on="both"), 0).result
    losses = [h["validation_loss"] for h in both.history]
    assert both.epochs_run > 3
    assert both.epochs_run in (9, int(np.argmin(losses)) + 3)


def test_a_score_by_path_chooses_and_is_reported(small, own, tmp_path):
    name = f"{own}:hits"
    experiment = Experiment("quick", filled(small, select=name), small, small.fingerprint)
    outcome = experiment.run()
    history, metrics = outcome.result.history, outcome.result.metrics
    assert outcome.result.chosen_epoch == int(np.argmax([h["validation_accuracy"] for h in history]))
    assert metrics.test.others == {name: np.trace(metrics.test.confusion) / 1000}
    assert read_result(keep(experiment, outcome, tmp_path)) == outcome.result
    with pytest.raises(MerZooError, match="nothing' is nan, which cannot be compared"):
        train(task(small, select=f"{own}:nothing"), 0)
    with pytest.raises(MerZooError, match="fails: TypeError"):
        value_of("math:sqrt", np.eye(2))


def test_what_is_named_decides_the_run(small, own, tmp_path):
    def run(**training):
        plan = filled(small, **training)
        assert Plan.model_validate(plan.plain()) == plan
        return Experiment("quick", plan, small, small.fingerprint).identity.run

    plain, explicit = run(), run(optimizer={"name": "adam", "amsgrad": False})
    by_path = {"optimizer": f"{own}:Signs"}
    runs = [
        plain, run(optimizer={"name": "adam", "amsgrad": True}), run(schedule="cosine"), run(schedule="linear"),
        run(warm_up=1), run(select="loss"), run(patience=3), run(patience=3, stop_on="both"), run(**by_path),
    ]  # fmt: skip
    assert explicit == plain == run(schedule=None)
    assert len(set(runs)) == len(runs)
    assert run(optimizer="torch.optim.RAdam") == run(optimizer="torch.optim:RAdam")
    (tmp_path / "own.py").write_text(OWN.replace("1 - group", "2 - group"))
    assert run(**by_path) != runs[-1]


def test_a_saved_model_runs_no_code_of_its_training(small, own, tmp_path):
    settings = {"optimizer": f"{own}:Signs", "schedule": f"{own}:Halve", "select": f"{own}:hits"}
    experiment = Experiment("quick", filled(small, 1, **settings), small, small.fingerprint)
    path = keep(experiment, experiment.run(), tmp_path, weights=True)
    marks = (tmp_path / "was_run").read_text()
    (tmp_path / "own.py").write_text(f"{OWN}\n# changed")
    loaded = saving.load(path)
    assert (tmp_path / "was_run").read_text() == marks
    assert loaded.plan.training.optimizer.name == f"{own}:Signs"
    assert loaded.predict(small.select(small.splits["test"]))
    (tmp_path / "own.py").unlink()
    assert saving.load(path).run == loaded.run


MISTAKES = {
    "an optimiser": ({"optimizer": "adm"}, r"training.optimizer: no optimizer named 'adm'. Did you mean 'adam'\?"),
    "its setting": ({"optimizer": {"name": "adam", "amsgrd": True}}, r"no setting 'amsgrd'. Did you mean 'amsgrad'\?"),
    "a setting's type": ({"optimizer": {"name": "adam", "eps": "x"}}, "'eps' of optimizer/adam: must be a"),
    "a value": ({"optimizer": {"name": "sgd", "momentum": -1.0}}, "'sgd' cannot be made of these settings"),
    "a rate inside": ({"optimizer": {"name": "adam", "lr": 0.1}}, r"write it as `training.learning_rate`"),
    "how it computes": ({"optimizer": {"name": "adam", "fused": True}}, "optimizer/adam has no setting 'fused'"),
    "no optimiser": ({"optimizer": "torch.nn:Linear"}, "'torch.nn:Linear' is not a class below torch's Optimizer"),
    "a closure": ({"optimizer": "torch.optim.LBFGS"}, "wants `closure` in every step"),
    "no decay": ({"optimizer": "torch.optim.Rprop", "weight_decay": 0.1}, "has no weight decay. Set"),
    "nowhere": ({"optimizer": "nowhere.at_all:X"}, "cannot import 'nowhere.at_all'"),
    "no such class": ({"optimizer": "torch.optim:Adan"}, r"'torch.optim' has no 'Adan'. Did you mean 'Adam'\?"),
    "a schedule": ({"schedule": "cosin"}, r"training.schedule: no schedule named 'cosin'. Did you mean 'cosine'\?"),
    "a schedule's setting": ({"schedule": {"name": "cosine", "Tmax": 3}}, r"no setting 'Tmax'. Did you mean 'T_max'\?"),
    "a schedule's value": ({"schedule": {"name": "plateau", "factor": 2.0}}, "'plateau' fails: .*Factor should be"),
    "watching for nothing": ({"schedule": {"name": "cosine", "watch": "loss"}}, "cosine has no setting 'watch'"),
    "settings of none": ({"schedule": {"name": "none", "T_max": 3}}, "schedule/none has no settings"),
    "more than a rate": (
        {"schedule": {"name": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.1, "total_steps": 9}},
        "changes `betas` besides the learning rate",
    ),
    "a function": (
        {"schedule": {"name": "torch.optim.lr_scheduler.LambdaLR"}},
        "needs 'lr_lambda', which is no plain data",
    ),
    "a watched score": ({"schedule": {"name": "plateau", "watch": "los"}}, "no score named 'los'. Did you mean 'loss'"),
    "a score": ({"select": "weighted_f2"}, "training.select: no score named 'weighted_f2'. Did you mean 'weighted_f1'"),
    "a score that is none": ({"select": "math:pi"}, "'math:pi' is not a function of the confusion matrix"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_with_their_place(small, mistake):
    training, message = MISTAKES[mistake]
    with pytest.raises(MerZooError, match=message):
        filled(small, **training)


@pytest.mark.parametrize(
    ("training", "message"),
    [({"warm_up": 6}, "`warm_up` of 6 epochs ends behind the last of 6"), ({"stop_on": "both"}, "without `patience`")],
)
def test_settings_that_would_not_be_used_are_refused(small, tmp_path, training, message):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**MODEL, "training": {"epochs": 6, **training}}))
    with pytest.raises(MerZooError, match=message):
        recipe.read(str(tmp_path / "mine.yaml"))


def test_an_optimiser_that_may_read_values_back_is_not_recorded(small, own):
    from mer_zoo.training.descending import why_not_recorded

    assert "has no `capturable` form" in why_not_recorded(filled(small, optimizer=f"{own}:Signs").training)
    assert why_not_recorded(filled(small, optimizer="torch.optim.RAdam").training) is None


PUBLISHED = {
    "cogmen/iemocap": {"schedule": "plateau"},
    "corect/iemocap": {"schedule": "plateau"},
    "graphsmile/iemocap": {"optimizer": {"name": "adamw", "amsgrad": True}},
    "mm_dfn/meld": {"patience": 5, "stop_on": "both"},
    "dialoguernn/iemocap": {"select": "loss"},
    "dialoguernn/meld": {"select": "weighted_f1"},
    "bilstm/iemocap": {"select": "loss"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_train_as_published(name):
    file = recipe.read(name)
    training = file.recipe.training.plain()
    assert {key: training[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    assert filling.fill(file, file.recipe.modalities).training.learning_rate == training["learning_rate"]
    plain = recipe.read(name.partition("/")[0]).recipe.training.plain()  # sized for small data: none of it
    assert not {"schedule", "stop_on"} & plain.keys()
    assert plain["select"] == "weighted_f1"
