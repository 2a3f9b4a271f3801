"""The loop: it learns, repeats itself, chooses on validation, and opens the test split last."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from mer_zoo import registry
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.splits import split_dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe, saving
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Model
from mer_zoo.results.result import read_result, write_result
from mer_zoo.training.experiment import Experiment
from mer_zoo.training.loop import train
from mer_zoo.training.task import Task


def task(dataset, name="amb_dsgdn", *changes):
    changes = ("training.epochs=3", *changes)
    return Task(name, filling.fill(recipe.read(name, changes), dataset.widths), dataset, split_dataset(dataset))


MODELS = [name for name in recipe.names() if "/" not in name and recipe.read(name).recipe.learner is None]


@pytest.mark.parametrize("name", MODELS)
def test_every_default_recipe_learns(small, name):
    losses = [h["train_loss"] for h in train(task(small, name, "training.epochs=5"), 0).result.history]
    assert losses[-1] < losses[0]


def test_a_seed_repeats_itself_and_another_differs(small):
    cell = task(small)
    first, again, other = (train(cell, seed).result for seed in (0, 0, 1))
    assert first.history == again.history
    assert first.predictions == again.predictions
    assert first.history != other.history
    assert first.run == again.run != other.run


def test_training_leaves_nothing_in_its_task(small):
    """Seeds share corpora; the second is what it would be alone."""
    shared = task(small)
    train(shared, 0)
    assert train(shared, 1).result.history == train(task(small), 1).result.history


@pytest.mark.parametrize(("protocol", "early"), [("validation", False), ("test-oracle", True)])
def test_the_test_split_is_opened_last(small, monkeypatch, protocol, early):
    opened, epochs = [], []
    original = Task.test.func
    monkeypatch.setattr(Task, "test", property(lambda self: opened.append(len(epochs)) or original(self)))
    result = train(task(small), 0, protocol=protocol, progress=epochs.append).result
    assert (opened[0] < len(epochs)) is early
    assert result.protocol == protocol
    assert (result.oracle_metrics is not None) is early
    if early:
        assert result.oracle_metrics.weighted_f1 >= result.metrics.test.weighted_f1


def test_test_labels_cannot_influence_training(small):
    """Training on a dataset whose test labels and features are scrambled gives the same model."""
    test = set(small.splits["test"])
    scrambled = [
        dataclasses.replace(
            dialogue,
            labels=dialogue.labels[::-1].copy(),
            features={m: x[::-1].copy() for m, x in dialogue.features.items()},
        )
        if dialogue.id in test
        else dialogue
        for dialogue in small
    ]
    other = Dataset(small.name, tuple(scrambled), small.label_names, small.splits)
    ours, theirs = train(task(small), 0), train(task(other), 0)
    assert ours.result.history == theirs.result.history
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_chosen_epoch_is_the_best_on_validation(small):
    outcome = train(task(small, "bilstm", "training.epochs=8"), 0)
    scores = [h["validation_weighted_f1"] for h in outcome.result.history]
    assert outcome.result.chosen_epoch == int(np.argmax(scores))
    assert outcome.result.metrics.validation.weighted_f1 == pytest.approx(max(scores))


def test_patience_ends_training(small):
    result = train(task(small, "bilstm", "training.epochs=60", "training.patience=2"), 0).result
    assert result.epochs_run == result.chosen_epoch + 3 < 60


def test_a_loss_that_is_not_finite_is_refused(small):
    with pytest.raises(MerZooError, match=r"Lower `training.learning_rate`"):
        train(task(small, "bilstm", "training.learning_rate=1.0e+30"), 0)


def test_balancing_acts_in_training_only(small):
    outcome = train(task(small, "amb_dsgdn", "balancing.warm_up=0", "balancing.probability=1.0"), 0)
    assert any(rate > 0 for h in outcome.result.history for rate in h["rates"].values())
    batch = task(small).test.batch([0, 1])
    with torch.no_grad():
        assert torch.equal(outcome.model.eval()(batch).logits, outcome.model(batch).logits)


def test_unlabelled_utterances_do_not_count(small):
    """Hiding a label removes it from the loss and from the scores, and leaves the utterance as context."""
    hidden = [dataclasses.replace(t, labels=np.where(np.arange(len(t)) == 0, -1, t.labels)) for t in small]
    data = Dataset("hidden", tuple(hidden), small.label_names, small.splits)
    result = train(task(data, "bilstm"), 0).result
    assert sum(map(sum, result.metrics.test.confusion)) == sum(len(data[i]) - 1 for i in data.splits["test"])


def test_a_dataset_without_training_labels_is_refused(small):
    blank = [dataclasses.replace(t, labels=np.full(len(t), -1)) for t in small]
    with pytest.raises(MerZooError, match="no training utterance has a label"):
        train(task(Dataset("blank", tuple(blank), small.label_names, small.splits)), 0)


def test_a_result_survives_the_disk(small, tmp_path):
    result = train(task(small, "bilstm"), 0).result
    assert read_result(write_result(result, tmp_path)) == result


@pytest.fixture(scope="module")
def trained(small):
    cell = task(small)
    outcome = train(cell, 0)
    return saving.Saved(outcome.model, "amb_dsgdn", cell.plan, small.label_names, "run", outcome.normaliser), outcome


def test_a_saved_model_predicts_the_same(trained, small, tmp_path):
    saved, outcome = trained
    saving.save(saved, tmp_path / "m.safetensors")
    again = saving.load(tmp_path / "m.safetensors")
    assert isinstance(again.model, Model)
    predicted = again.predict(small.select(small.splits["test"]))
    for name, prediction in outcome.result.predictions.items():
        np.testing.assert_allclose(predicted[name], prediction.probability, atol=1e-5)


def test_predicting_checks_its_input(trained):
    saved, _ = trained
    widths = saved.plan.modalities
    features = {m: np.zeros((3, w)) for m, w in widths.items()}
    crowd = {m: np.zeros((9, w)) for m, w in widths.items()}
    with pytest.warns(UserWarning, match="9 speakers, but model 'amb_dsgdn' was trained for"):
        predicted = saved.predict([Conversation("d", tuple("ABCDEFGHI"), np.zeros(9, int), crowd)])
    np.testing.assert_allclose(predicted["d"].sum(-1), 1, rtol=1e-6)
    with pytest.raises(MerZooError, match="audio features of width 24; here: none"):
        saved.predict([Conversation("d", ("A",) * 3, np.zeros(3, int), {"text": features["text"]})])
    alone = saved.predict([Conversation("d", ("A",), [-1], {m: x[:1] for m, x in features.items()})])
    np.testing.assert_allclose(alone["d"].sum(-1), 1, rtol=1e-6)


def test_damaged_models_are_refused(trained, tmp_path):
    saved, _ = trained
    path = tmp_path / "m.safetensors"
    saving.save(saved, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MerZooError, match="not a readable safetensors file"):
        saving.load(path)
    with pytest.raises(MerZooError, match="no such file"):
        saving.load(tmp_path / "n.safetensors")


class BreaksLater(nn.Linear):
    """Works at assembly, which runs it in evaluation mode, and fails in training."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.out_width = width

    def forward(self, x, layout):
        if self.training and layout.rows.shape[1] > 3:
            raise IndexError("index 3 is out of bounds")
        return super().forward(x)


def test_a_part_that_fails_in_training_is_named(small, monkeypatch):
    monkeypatch.setattr(registry.lookup, "_registered", {})
    registry.register("encoder", BreaksLater)
    broken = task(small, "bilstm", "model.context.encoder=breaks_later")
    with pytest.raises(MerZooError, match=r"model\.context: encoder/breaks_later fails here: IndexError: index 3 is"):
        train(broken, 0)


def test_training_leaves_the_callers_random_generator_alone(small):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(task(small, "bilstm", "training.epochs=1"), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_that_are_not_finite_are_never_kept(small):
    wild = task(small, "bilstm", "training.learning_rate=1e38", "training.epochs=1")
    with pytest.raises(MerZooError, match=r"seed 0, epoch 0: .* finite|training loss is"):
        train(wild, 0)


def shifted(dataset, splits, factor):
    """The same dialogues, the features of some splits multiplied."""
    chosen = {name for split in splits for name in dataset.splits[split]}
    moved = [
        dataclasses.replace(one, features={m: x * np.float32(factor) for m, x in one.features.items()})
        if one.id in chosen
        else one
        for one in dataset
    ]
    return Dataset(dataset.name, tuple(moved), dataset.label_names, dataset.splits)


def test_test_rows_do_not_touch_the_normaliser_or_the_weights(small):
    before, after = (train(task(data, "bilstm"), 0) for data in (small, shifted(small, ["test"], 1e6)))
    assert before.normaliser.state().keys() == {f"{m}.{what}" for m in small.widths for what in ("mean", "scale")}
    for name, x in before.normaliser.state().items():
        np.testing.assert_array_equal(x, after.normaliser.state()[name])
    for one, other in zip(before.model.state_dict().values(), after.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_saved_model_brings_its_normaliser(small, tmp_path):
    scaled = shifted(small, small.splits, 1e4)
    plain, large = (train(task(data, "bilstm"), 0) for data in (small, scaled))
    assert plain.result.metrics.test.accuracy == pytest.approx(large.result.metrics.test.accuracy, abs=0.05)
    saving.save(
        saving.Saved(large.model, "b", large.model.plan, small.label_names, "run", large.normaliser), tmp_path / "m"
    )
    predicted = saving.load(tmp_path / "m").predict(scaled.select(scaled.splits["test"]))
    for name, prediction in large.result.predictions.items():
        np.testing.assert_allclose(predicted[name], prediction.probability, atol=1e-5)


def test_a_learner_is_a_run_like_others(small):
    outcome = prepare_learner(small, "two_stage_regression").run()
    assert outcome.model is None
    assert outcome.result.metrics.test.accuracy > prepare_learner(small, "majority").run().result.metrics.test.accuracy
    assert read_result_again(outcome.result) == outcome.result


def prepare_learner(dataset, name):
    parsed = recipe.Recipe.model_validate({"title": name, "learner": name})
    plan = filling.fill(recipe.RecipeFile(name, parsed), dataset.widths)
    return Experiment(name, plan, dataset, dataset.fingerprint)


def read_result_again(result):
    return type(result).model_validate_json(result.model_dump_json())


def test_a_recipe_is_a_model_or_a_learner():
    with pytest.raises(ValueError, match="neither"):
        recipe.Recipe.model_validate({"title": "t"})
    with pytest.raises(ValueError, match="training would not be used"):
        recipe.Recipe.model_validate({"title": "t", "learner": "majority", "training": {"epochs": 3}})


STRANGER = """
from pathlib import Path

import torch

Path(__file__).with_suffix(".ran").touch()


class Mine(torch.nn.Linear):
    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.out_width = width

    def forward(self, x, layout):
        return super().forward(x)
"""


@pytest.mark.attack("A1")
def test_a_model_file_runs_no_code_that_is_not_trusted(small, tmp_path):
    file, mark = tmp_path / "mine.py", tmp_path / "mine.ran"
    file.write_text(STRANGER)
    name = f"{file}:Mine"
    cell = task(small, "bilstm", f"model.context.encoder={name}", "training.epochs=1")
    outcome = train(cell, 0)
    kept = saving.Saved(outcome.model, "b", cell.plan, small.label_names, "run", outcome.normaliser)
    saving.save(kept, tmp_path / "m")
    mark.unlink()
    file.write_text(STRANGER + "# edited\n")
    with pytest.raises(MerZooError, match=r"needs code that is not installed: .*mine\.py:Mine\. It was not run"):
        saving.load(tmp_path / "m")
    assert not mark.exists()
    with pytest.raises(MerZooError, match="not what it was when the model was trained"):
        saving.load(tmp_path / "m", trust=[name])
    file.write_text(STRANGER)
    assert saving.load(tmp_path / "m", trust=[name]).run == "run"


class ShortTable(nn.Embedding):
    """A position table too short for the data."""

    def __init__(self, width: int) -> None:
        super().__init__(4, width)
        self.out_width = width

    def forward(self, x, layout):
        return x + super().forward(layout.position)


def test_a_table_that_is_too_short_for_the_data_is_refused_before_training(small, monkeypatch):
    monkeypatch.setattr(registry.lookup, "_registered", {})
    registry.register("encoder", ShortTable)
    cell = task(small, "bilstm", "model.context.encoder=short_table")
    with pytest.raises(MerZooError, match=r"model\.context: encoder/short_table fails here, on two random dialogues"):
        assemble(cell.plan, cell.facts)
