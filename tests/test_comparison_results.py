"""Result files: what is written is what is read, and what is damaged is named."""

import json

import pytest
from comparison_results import fabricate
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mer_zoo.errors import MerZooError
from mer_zoo.results.identity import Identity
from mer_zoo.results.result import Environment, read_result, read_results, write_result


def test_a_result_comes_back_as_it_was(tmp_path):
    result = fabricate(fold=2, folds=5, rates=True, ceiling=0.8, warnings=("beware",))
    path = write_result(result, tmp_path / "new" / "folder")
    assert path.name == f"amb_dsgdn-iemocap-seed0-fold2-{result.run}.result.json"
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no temporary file stays
    assert read_result(path) == result
    assert read_results(tmp_path) == [result]


def test_the_same_run_overwrites_its_file(tmp_path):
    write_result(fabricate(), tmp_path)
    write_result(fabricate(), tmp_path)
    write_result(fabricate(seed=1), tmp_path)
    assert sorted(result.seed for result in read_results(tmp_path)) == [0, 1]


def test_file_names_are_safe_on_every_system(tmp_path):
    path = write_result(fabricate("acme/gated: 2", dataset="my data"), tmp_path)
    assert path.parent == tmp_path
    assert path.name.startswith("acme_gated_2-my_data-seed0-")


def test_values_that_are_not_finite_are_kept_as_missing(tmp_path):
    fields = fabricate().model_dump()
    fields["history"][3]["train_loss"] = float("nan")
    first = next(iter(fields["predictions"].values()))
    first["probability"][0][0] = float("inf")
    result = read_result(write_result(type(fabricate()).model_validate(fields), tmp_path))
    assert result.history[3]["train_loss"] is None
    assert next(iter(result.predictions.values())).probability[0][0] is None


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=4), plain, max_size=4))
def test_a_run_id_survives_json_and_the_order_of_keys(recipe):
    again = json.loads(json.dumps(dict(reversed(recipe.items()))))
    assert Identity(recipe=recipe, data="f", seed=1).run == Identity(recipe=again, data="f", seed=1).run


def test_a_run_id_changes_with_all_that_determines_a_run():
    first = {"recipe": {"lr": 1}, "data": "f", "seed": 0, "versions": {"mer_zoo": 1, "loss/nll": 1}}
    others: list[dict] = [
        {"recipe": {"lr": 2}},
        {"data": "g"},
        {"seed": 1},
        {"fold": 0},
        {"protocol": "test-oracle"},
        {"precision": "bf16"},
        {"split": {"test": "sessions"}},
        {"versions": {"mer_zoo": 2, "loss/nll": 1}},
        {"versions": {"mer_zoo": 1, "loss/nll": 2}},
    ]
    assert len({Identity(**{**first, **other}).run for other in [{}, *others]}) == 1 + len(others)
    with pytest.raises(MerZooError, match="not plain JSON"):
        _ = Identity(recipe={"lr": float("nan")}, data="f", seed=0).run


def change(data, **changes):
    return json.dumps(data | changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: "", "not JSON"),
        (lambda data: json.dumps(data)[:-30], "not JSON"),
        (lambda data: "[" * 100_000, "not JSON"),
        (lambda data: "[]", "damaged"),
        (lambda data: change(data, format=3), "reads format 2"),
        (lambda data: change(data, protocol="guess"), "protocol"),
        (lambda data: change(data, colour="red"), "colour: Extra"),
        (lambda data: change(data, seed=7), "hashes to"),
        (lambda data: change(data, predictions={}), "dialogues of the test split"),
        (lambda data: json.dumps({k: v for k, v in data.items() if k != "metrics"}), "metrics: Field required"),
    ],
)
def test_a_damaged_file_is_refused_by_name_or_left_out_aloud(tmp_path, damage, message):
    good, bad = fabricate(seed=1), write_result(fabricate(), tmp_path)
    write_result(good, tmp_path)
    bad.write_text(damage(json.loads(bad.read_text())))
    with pytest.raises(MerZooError, match=message) as caught:
        read_results(tmp_path)
    assert str(caught.value).startswith(str(bad))
    heard = []
    assert read_results(tmp_path, on_damaged=heard.append) == [good]
    assert heard == [str(caught.value)]


def test_all_damaged_files_are_named_at_once(tmp_path):
    for seed in range(3):
        write_result(fabricate(seed=seed), tmp_path).write_bytes(b"\xff\x00")
    with pytest.raises(MerZooError) as caught:
        read_results(tmp_path)
    assert str(caught.value).count("damaged result file") == 3


def test_scores_must_be_those_of_the_predictions():
    fields = fabricate().model_dump()
    next(iter(fields["predictions"].values()))["predicted"][0] = 5
    next(iter(fields["predictions"].values()))["label"][0] = 0
    with pytest.raises(ValidationError, match="does not agree with the predictions"):
        type(fabricate()).model_validate(fields)


def test_folders_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(MerZooError, match="no such folder"):
        read_results(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(MerZooError, match="cannot be written"):
        write_result(fabricate(), tmp_path / "file")
    with pytest.raises(MerZooError, match="cannot be read"):
        read_result(tmp_path / "absent.result.json")


def test_the_environment_names_versions():
    here = Environment.here("cpu")
    assert here.numpy[0].isdigit()
    assert here.mer_zoo[0].isdigit()
    assert here.cpu_count >= 1
