"""A trained model as a folder: it predicts the same, its card says what the result says, and no name is obeyed."""

import json
import shutil

import numpy as np
import pytest
import yaml
from test_cli import run

import mer_zoo
from mer_zoo.comparison.model_card import card
from mer_zoo.data.container import write_dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe
from mer_zoo.results.metrics import SCORES
from mer_zoo.results.result import read_result
from mer_zoo.training.experiment import keep, prepare, weights_beside

HOSTILE = "evil\n---\n# head <script>x</script> [a](javascript:b) | `c` : {d}\x1b[31m"


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    changes = ["training.epochs=2", "normalise=train"]
    one = prepare("bilstm", small, changes=changes)
    return keep(one, one.run(), folder, weights=True)


def test_the_folder_predicts_the_same_to_the_bit(trained, small, tmp_path):
    folder = mer_zoo.export(trained, tmp_path / "model")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.safetensors", "recipe.yaml"]
    before = mer_zoo.load_model(trained).predict(small.conversations)
    after = mer_zoo.load_model(folder).predict(small.conversations)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]  # nothing is left beside it


def test_the_recipe_makes_the_same_plan(trained, small, tmp_path):
    folder = mer_zoo.export(trained, tmp_path / "model")
    plan = filling.fill(recipe.read(folder / "recipe.yaml"), small.widths)
    assert json.loads(json.dumps(plan.plain())) == read_result(trained).recipe


def test_the_card_says_what_the_result_says(trained, tmp_path):
    result = read_result(trained)
    text = (mer_zoo.export(trained, tmp_path / "model") / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    (model,) = yaml.safe_load(front)["model-index"]
    (measured,) = model["results"]
    found = {one["type"]: one["value"] for one in measured["metrics"]}
    assert found == {score: round(getattr(result.metrics.test, score), 6) for score in SCORES}
    assert "license" not in yaml.safe_load(front)
    for split in (result.metrics.validation, result.metrics.test):
        assert f"{100 * split.weighted_f1:.2f}" in body
    assert f"Epoch {result.chosen_epoch} of 2 was chosen on the validation split" in body
    assert result.dataset.fingerprint in body
    assert "24 training, 6 validation, 8 test" in body
    assert f"mer-zoo rerun {result.file_name}" in body
    assert "The settings are not those of mer_zoo's recipe bilstm" in body


def test_an_unchanged_recipe_is_called_by_its_status(trained):
    result = read_result(trained)
    for name in ("mlp", "dialoguecrn"):
        plan = filling.fill(recipe.read(name), result.dataset.modalities).plain()
        text = card(result.model_copy(update={"recipe_name": name, "recipe": json.loads(json.dumps(plan))}))
        assert f"Recipe {name} of mer_zoo: " in text
        assert ("cite that paper" in text) == (name == "dialoguecrn")


def test_no_name_is_obeyed(trained):
    result = read_result(trained)
    first = result.dataset.label_names[0]
    named = result.dataset.model_copy(
        update={"name": HOSTILE, "warnings": [HOSTILE], "label_names": [HOSTILE, *result.dataset.label_names[1:]]}
    )
    classes = {HOSTILE if label == first else label: one for label, one in result.metrics.test.per_class.items()}
    test = result.metrics.test.model_copy(update={"per_class": classes})
    metrics = result.metrics.model_copy(update={"test": test})
    changed = {"recipe_name": HOSTILE, "dataset": named, "metrics": metrics}
    changed["recipe"] = result.recipe | {"code": {f"layer/{HOSTILE}:X": "f00d"}}
    text = card(result.model_copy(update=changed))
    assert text.splitlines().count("---") == 2
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["model-index"][0]["name"].startswith("evil\\n---")
    assert "\x1b" not in text
    outside = text.split("---\n", 2)[2].split("```console")[0]
    assert "<script" not in outside
    assert "](javascript" not in outside.replace("\\]", "")
    assert [line for line in text.splitlines() if line.startswith("# ")] == [text.split("---\n\n", 1)[1].split("\n")[0]]
    assert "f00d" in outside


def test_what_cannot_be_exported_is_refused(trained, small, tmp_path, capsys):
    alone = shutil.copy(trained, tmp_path)
    with pytest.raises(MerZooError, match="no weights beside it"):
        mer_zoo.export(alone, tmp_path / "model")
    other = prepare("mlp", small, changes=["training.epochs=1"])
    theirs = keep(other, other.run(), tmp_path / "other", weights=True)
    mine = weights_beside(tmp_path / trained.name)
    shutil.copy(weights_beside(theirs), mine)
    with pytest.raises(MerZooError, match="weights of another run"):
        mer_zoo.export(alone, tmp_path / "model")
    mine.write_bytes(weights_beside(trained).read_bytes()[:-9])
    with pytest.raises(MerZooError, match="not a readable safetensors file"):
        mer_zoo.export(alone, tmp_path / "model")
    assert not [path for path in tmp_path.iterdir() if "model" in path.name]  # nothing half-written
    (tmp_path / "there").mkdir()
    code, _, err = run(capsys, "export", trained, "--to", tmp_path / "there")
    assert code == 2
    assert "exists already" in err
    with pytest.raises(MerZooError, match=r"no model\.safetensors in this folder"):
        mer_zoo.load_model(tmp_path / "there")


def test_the_command_and_predict_take_the_folder(trained, small, tmp_path, capsys):
    data = write_dataset(small, tmp_path / "data")
    assert run(capsys, "export", weights_beside(trained), "--to", tmp_path / "model")[0] == 0
    assert run(capsys, "predict", tmp_path / "model", "--data", data, "--json")[0] == 0
