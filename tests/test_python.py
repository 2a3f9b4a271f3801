"""From Python: recipes as names, paths and mappings, data as names, folders, datasets; one word for changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import mer_zoo
from mer_zoo.errors import MerZooError
from mer_zoo.model import recipe
from mer_zoo.training.experiment import prepare

QUICK = {"training.epochs": 1}
MINE = {
    "title": "mine",
    "model": {"join": {"fusion": "concat"}, "context": {"encoder": "linear"}, "classify": {"head": "linear"}},
    "training": {"epochs": 1},
}


def test_a_recipe_is_the_same_by_name_path_and_mapping(tmp_path, small):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINE, sort_keys=False), encoding="utf-8")
    plans = [prepare(given, small).plan for given in (MINE, path, str(path))]
    assert plans[0] == plans[1] == plans[2]
    extended = {"extends": "bilstm", "title": "more", "training": {"epochs": 7}}
    assert prepare(extended, small).plan == prepare("bilstm", small, changes={"training.epochs": 7}).plan
    assert prepare({**extended, "extends": str(path)}, small).plan.training.epochs == 7
    assert prepare(MINE, small).name == "mine"
    assert (
        prepare({**MINE, "modalities": ("text",)}, small).plan == prepare({**MINE, "modalities": ["text"]}, small).plan
    )


def test_a_mapping_is_not_kept_nor_changed(small):
    given = {**MINE, "training": {"epochs": 1}}
    file = recipe.read(given, {"training.epochs": 3})
    assert file.recipe.training.epochs == 3
    assert given["training"] == {"epochs": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"title": "t", "model": {"join": {"fusion": "concta"}}}, "Did you mean 'concat'"),
        ({"title": "t", "modle": {}}, "recipe modle"),
        ({"extends": "bilsmt"}, "recipe extends: no recipe named 'bilsmt'. Did you mean 'bilstm'"),
        ({"title": "t", "model": {"join": {"fusion": object()}}}, "recipe: must be plain data"),
    ],
)
def test_what_is_wrong_in_a_mapping_is_named(given, message, small):
    with pytest.raises(MerZooError, match=message):
        prepare(given, small)


def test_a_change_is_a_mapping_or_words(small):
    ways = [{"training.epochs": 1}, ["training.epochs=1"]]
    runs = [mer_zoo.train(MINE, small, change=way).result for way in ways]
    assert runs[0].run == runs[1].run
    with pytest.raises(MerZooError, match="want a key such as"):
        mer_zoo.train(MINE, small, change={"training.": 1})


def test_compare_takes_mappings_paths_and_data_in_memory(tmp_path, small, small_folder):
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump({**MINE, "title": "other"}, sort_keys=False), encoding="utf-8")
    how = {"seeds": 1, "output": tmp_path / "runs", "workers": 1}
    found = mer_zoo.compare([MINE, path, "majority"], Path(small_folder), change=["training.epochs=1"], **how)
    assert [run.recipe_name for run in found] == ["mine", "other", "majority"]
    named = mer_zoo.compare({"A": MINE, "B": {"recipe": MINE, "change": {"training.epochs": 2}}}, small, **how)
    assert {run.recipe_name: run.epochs_run for run in named} == {"A": 1, "B": 2}
    assert "A" in str(named)


def test_data_in_memory_are_told_apart_by_their_contents(tmp_path, small):
    how = {"seeds": 1, "output": tmp_path / "runs", "workers": 1}
    one = replace(small, fingerprint="")
    fewer = {**small.splits, "train": small.splits["train"][:-2]}
    other = replace(small, fingerprint="", splits=fewer)
    found = mer_zoo.compare([MINE], [one, other], **how)
    assert len({run.dataset.fingerprint for run in found}) == 2
    assert len({run.run for run in found}) == 2
    assert "" not in {run.dataset.fingerprint for run in found}
    assert mer_zoo.train(MINE, one).result.run == found[0].run
    with pytest.raises(MerZooError, match="is there twice"):
        mer_zoo.compare([MINE], [one, one], **how)


def test_a_data_frame_is_data(tmp_path, small):
    pandas = pytest.importorskip("pandas")
    rows = [
        {"dialogue": one.id, "utterance": i, "speaker": speaker, "label": small.label_names[one.labels[i]]}
        | {"split": split, "text_features": one.features["text"][i].tolist()}
        for split, ids in small.splits.items()
        for one in small.select(ids)
        for i, speaker in enumerate(one.speakers)
    ]
    frame = pandas.DataFrame(rows)
    outcome = mer_zoo.train(MINE, frame)
    assert outcome.result.dataset.modalities == {"text_features": small.widths["text"]}
    (run,) = mer_zoo.compare([MINE], [frame], seeds=1, output=tmp_path, workers=1)
    assert run.run == outcome.result.run
    assert run.dataset.name == "dataframe"


def test_what_cannot_be_compared_is_named(small, tmp_path):
    with pytest.raises(MerZooError, match=r"'bilstm' is one\. Give a list"):
        mer_zoo.compare("bilstm", small)
    with pytest.raises(MerZooError, match=r"two are called 'mine'\. Give a mapping"):
        mer_zoo.compare([MINE, MINE], small)
    with pytest.raises(MerZooError, match="want a DataFrame of pandas or polars, not a int"):
        mer_zoo.train(MINE, 3)


def test_wildcards_stand_for_the_recipes_that_fit(small, tmp_path):
    found = mer_zoo.compare(["major*"], small, seeds=1, output=tmp_path, workers=1)
    assert [result.recipe_name for result in found] == ["majority"]
    with pytest.raises(MerZooError, match=r"models: nothing fits 'zzz\*'"):
        mer_zoo.compare(["zzz*"], small, output=tmp_path)
