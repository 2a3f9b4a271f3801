"""Contributions of modalities are noted after every epoch, on validation alone, and change nothing else of a run."""

import pickle
from dataclasses import replace

import killing
import numpy as np
import pytest
from comparison_results import fabricate
from test_inside import own_nodes
from test_resuming import Stopped, every_epoch, stop_in  # noqa: F401

import mer_zoo
from mer_zoo.comparison import curves
from mer_zoo.comparison.executing import execute
from mer_zoo.comparison.report import write_html
from mer_zoo.comparison.statistics import compare
from mer_zoo.errors import MerZooError
from mer_zoo.results.result import read_results
from mer_zoo.results.run import Run
from mer_zoo.training.checkpoint import Checkpoints
from mer_zoo.training.experiment import keep, prepare, run_stack
from mer_zoo.training.options import ComputeOptions

DATA = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
NOTED = ComputeOptions(contributions=True)
DRAWING = """
import torch
from torch import nn


class Drawing(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width, self.map = width, nn.Linear(width, width)

    def forward(self, x, layout):
        return self.map(x) + 1e-7 * torch.rand(1)  # between classes that are equal, chance decides
"""
BY_FEATURES = {
    "title": "t",
    "graph": {"name": "k_nearest", "k": 2},
    "model": {
        "project": {"encoder": {"name": "linear", "out_width": 8}},
        "look": {"layer": {"name": "gat"}},
        "join": {"fusion": "concat"},
        "classify": {"head": "linear"},
    },
}
MODELS = {
    "joined at first": "bilstm",
    "heads of their own": "amb_dsgdn",
    "own nodes": own_nodes("gat"),
    "edges by features": BY_FEATURES,
    "by speaker": {**BY_FEATURES, "normalise": {"text": "speaker", "audio": "train"}},
    "several tasks": "graphsmile/sentiment",
}


def made(recipe, options=NOTED, data=DATA, seed=0, **changes):
    return prepare(recipe, data, changes={"training.epochs": 3, **changes}, seed=seed, options=options)


def series(result):
    return [epoch["contributions"] for epoch in result.history]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_mean_of_what_every_validation_utterance_is_told(name, small):
    judged_too = (replace(dialogue, targets={"sentiment": dialogue.labels % 3}) for dialogue in small)
    data = replace(small, conversations=tuple(judged_too), fingerprint="")
    experiment = made(MODELS[name], data=data, **{"training.dialogues_per_batch": 2})
    task, seen = experiment.task(), []
    outcome = experiment.run(seen.append)
    noted = series(outcome.result)
    assert noted == [epoch["contributions"] for epoch in seen]
    assert len({tuple(epoch.values()) for epoch in noted}) > 1
    said = [mer_zoo.contributions(outcome, d) for d in task.dataset.select(task.split.validation)]
    wanted = {m: np.concatenate([one.contributions[m] for one in said]).mean() for m in task.plan.modalities}
    assert noted[outcome.result.chosen_epoch] == pytest.approx(wanted, abs=1e-6)
    assert Run.done(outcome.result, {}).epochs[0]["contributions/text"] == noted[0]["text"]


def test_the_test_split_is_not_looked_at_before_the_epoch_is_chosen():
    experiment = made("bilstm")
    task, there = experiment.task(), []
    mer_zoo.training.loop.train(task, 0, options=NOTED, progress=lambda record: there.append("test" in vars(task)))
    assert there == [False] * 3


@pytest.mark.parametrize("recipe", ["amb_dsgdn", "one that draws while it is judged"])
def test_nothing_else_of_a_run_changes(recipe, tmp_path):
    if recipe != "amb_dsgdn":
        (tmp_path / "own.py").write_text(DRAWING)
        part = {"own": {"encoder": f"{tmp_path}/own.py:Drawing"}}
        recipe = {"title": "t", "model": {"join": {"fusion": "concat"}, **part, "classify": {"head": "linear"}}}
    found = []
    for options in (ComputeOptions(), NOTED):
        experiment = made(recipe, options)
        keep(experiment, experiment.run(), tmp_path / str(options.contributions), weights=True)
        files = killing.files(tmp_path / str(options.contributions))
        (result,) = (one for name, one in files.items() if name.endswith(".result.json"))
        found.append((files, [epoch.pop("contributions", None) for epoch in result["history"]]))
    (plain, nothing), (noted, each) = found
    assert plain == noted
    assert (nothing, None in each) == ([None] * 3, False)


def test_stacked_seeds_note_what_each_would_alone():
    changes = {"balancing": "none", "training.optimizer": "sgd", "training.patience": 1}
    stack = [made(own_nodes("gat"), seed=seed, **changes) for seed in (0, 1)]
    for one, outcome in zip(stack, run_stack(stack), strict=True):
        alone, together = series(one.run().result), series(outcome.result)
        for mine, theirs in zip(alone, together, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)


@pytest.mark.usefixtures("every_epoch")
def test_a_checkpoint_carries_them(tmp_path):
    experiment = made("bilstm")
    undisturbed = experiment.run().result
    for folder in ("on", "off"):
        with pytest.raises(Stopped):
            experiment.run(stop_in(2), Checkpoints(tmp_path / folder, strict=True))
    resumed = experiment.run(None, Checkpoints(tmp_path / "on", strict=True)).result
    assert killing.inside(resumed.model_dump(mode="json")) == killing.inside(undisturbed.model_dump(mode="json"))
    with pytest.raises(MerZooError, match="contributions is true there"):  # half a series would be one unseen
        made("bilstm", ComputeOptions()).run(None, Checkpoints(tmp_path / "off", strict=True))


def test_a_comparison_notes_them_where_they_can_be_and_runs_again_what_lacks_them(tmp_path):
    how = {"seeds": 2, "output": tmp_path, "workers": 1}
    models = {
        "two": {"recipe": "bilstm", "change": {"modalities": ["text", "audio"], "training.epochs": 2}},
        "one": {"recipe": "mlp", "change": {"modalities": ["text"], "training.epochs": 2}},
        "none": "majority",
    }
    before = {run.run: run for run in mer_zoo.compare(models, DATA, **how)}
    told = "one, for text is its only modality; none, for a learner has no epochs"
    with pytest.warns(match=f"No contributions over epochs of {told}"):
        found = mer_zoo.compare(models, DATA, contributions=True, **how)
    for run in found:
        noted = [list(epoch.get("contributions", ())) for epoch in run.history]
        assert noted == ([] if run.recipe_name == "none" else [["text", "audio"] * (run.recipe_name == "two")] * 2)
        assert (run.finished == before[run.run].finished) == (run.recipe_name != "two")
    assert mer_zoo.compare(models, DATA, **how) == found  # those that are there are kept
    for recipe, change in (("majority", {}), ("mlp", {"modalities": ["text"]})):
        with pytest.raises(MerZooError, match=r"no contributions over epochs, for .* Leave `contributions` out"):
            mer_zoo.train(recipe, DATA, change=change, contributions=True)


def test_a_run_made_again_for_its_weights_keeps_them(tmp_path):
    first = prepare("bilstm", DATA, changes=["training.epochs=2"], options=NOTED)
    (noted,), _ = execute([first], tmp_path, workers=1)
    (again,), _ = execute([replace(first, options=ComputeOptions())], tmp_path, workers=1, keep_weights=True)
    assert [epoch["contributions"] for epoch in again.history] == [epoch["contributions"] for epoch in noted.history]
    assert read_results(tmp_path) == [again]


def test_they_come_back_from_another_machine(tmp_path):
    def elsewhere(work, stacks):
        for stack in stacks:
            yield stack, pickle.loads(pickle.dumps(work))(pickle.loads(pickle.dumps(stack)))

    (here,), _ = execute([made("bilstm")], tmp_path / "here", workers=1)
    execute([made("bilstm")], tmp_path / "there", executor=elsewhere)
    (there,) = read_results(tmp_path / "there")
    assert series(there) == series(here)


def with_series(run, factor):
    history = [
        {**epoch, "contributions": {"text": 0.01 * i, "audio": -factor * 0.01}} for i, epoch in enumerate(run.history)
    ]
    return run.model_copy(update={"history": history})


def test_the_report_draws_the_mean_in_points_and_nothing_where_nothing_was_noted(tmp_path):
    runs = [with_series(fabricate("a", seed=seed, epochs=5), seed) for seed in (0, 1)]
    runs += [fabricate("b", seed=seed) for seed in (0, 1)]
    models = {model.name: model for model in compare(runs).models}
    (figure,) = curves.contributions(models["a"])
    assert figure.caption == "Contributions of a"
    assert "in points of probability" in figure.alt
    assert figure.alt.endswith("at the end on average text 4, audio -0.5.")
    assert list(curves.contributions(models["b"])) == []  # as of a version that noted none
    page = write_html(runs, tmp_path / "report.html").read_text()
    assert figure.source in page
    assert "Contributions of b" not in page
