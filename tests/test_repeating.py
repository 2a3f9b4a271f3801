"""A published score beside ours by both rules, and a run made again from its result file."""

import json
from pathlib import Path

import numpy as np
import pytest
from comparison_results import fabricate
from test_cli import run

import mer_zoo
from mer_zoo.comparison.inference import interval
from mer_zoo.comparison.repeating import claims
from mer_zoo.errors import MerZooError
from mer_zoo.model.recipe import Published
from mer_zoo.results.result import write_result

FAST = ["-o", "training.epochs=2"]


def claim(value, rule="validation", metric="weighted_f1"):
    return Published(dataset="iemocap", metric=metric, value=value, where="table 2", selected_on=rule)


@pytest.fixture(scope="module")
def results():
    return [fabricate(seed=seed, protocol="test-oracle", oracle=True) for seed in range(6)]


@pytest.mark.parametrize(
    ("shift", "rule", "verdict"),
    [
        (0.0, "validation", "reproduced: by its own rule"),
        (20.0, "validation", "not reproduced: by its own rule it lies above"),
        (-20.0, "validation", "not reproduced: by its own rule it lies below"),
        (0.0, "unknown", "by the test split, the likeliest rule"),
    ],
)
def test_a_claim_is_judged_by_the_rule_it_was_made_by(results, shift, rule, verdict):
    ours = claims([claim(50.0)], results)[0].honest.value
    (one,) = claims([claim(100 * ours + shift, rule)], results)
    assert verdict in one.verdict
    assert one.honest.low < one.honest.value < one.honest.high
    assert one.oracle.value > one.honest.value


def test_one_seed_gives_no_verdict(results):
    (one,) = claims([claim(50.0)], results[:1])
    assert "no verdict" in one.verdict


def test_scores_that_are_not_measured_are_named(results):
    with pytest.raises(MerZooError, match=r"no published score that is measured here \(published: mae\)"):
        claims([claim(50.0, metric="mae")], results)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        skill = 0.7 + 0.03 * random.standard_normal((6, 1)) + 0.05 * random.standard_normal((1, 40))
        hits = random.binomial(10, np.clip(skill, 0, 1))
        found = interval(
            np.stack([np.stack([hits, 10 - hits], -1), np.stack([0 * hits, 0 * hits], -1)], -2), "accuracy"
        )
        covered += found.low <= 0.7 <= found.high
    assert 0.93 <= covered / 300 <= 1.0


def test_a_run_is_repeated_to_the_bit_on_one_machine(capsys, small_folder, tmp_path):
    command = ["train", "amb_dsgdn", "--data", small_folder, "--output", tmp_path, "--seed", 3, *FAST]
    assert run(capsys, *command)[0] == 0
    (result,) = tmp_path.glob("*.result.json")
    before = result.read_bytes()
    code, out, err = run(capsys, "rerun", result, "--data", small_folder)
    assert code == 0, err
    assert "predictions are the same (probabilities within 0)" in " ".join(out.split())
    assert result.read_bytes() == before


def test_other_data_versions_and_parts_are_refused(capsys, small_folder, tmp_path):
    assert run(capsys, "train", "bilstm", "--data", small_folder, "--output", tmp_path, *FAST)[0] == 0
    (result,) = tmp_path.glob("*.result.json")
    code, _, err = run(capsys, "rerun", result, "--data", "synthetic")
    assert (code, "the data given have" in err) == (2, True)
    code, _, err = run(capsys, "rerun", tmp_path / "none.result.json")
    assert (code, "cannot be read" in err) == (2, True)


def test_a_run_on_data_with_settings_is_repeated(capsys, tmp_path):
    data = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
    outcome = mer_zoo.train("bilstm", data=data, change={"training.epochs": 1})
    path = write_result(outcome.result, tmp_path)
    code, _, err = run(capsys, "rerun", path)
    assert (code, "--data '{name: ..., setting: value}'" in err) == (2, True)
    code, out, err = run(capsys, "rerun", path, "--data", json.dumps(data))
    assert (code, "predictions are the same" in " ".join(out.split())) == (0, True), err


def test_scores_that_were_edited_are_found(capsys, small_folder, tmp_path):
    assert run(capsys, "train", "bilstm", "--data", small_folder, "--output", tmp_path, *FAST)[0] == 0
    (path,) = tmp_path.glob("*.result.json")
    edited = json.loads(path.read_text())
    edited["metrics"]["test"]["weighted_f1"] = 0.99
    path.write_text(json.dumps(edited))
    code, _, err = run(capsys, "rerun", path, "--data", small_folder)
    assert (code, "weighted_f1 does not agree with its confusion matrix" in err) == (2, True)


def test_a_result_file_runs_no_code_that_is_not_trusted(capsys, small_folder, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import os\nfrom pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
        "from mer_zoo.parts.head.linear import Linear\nclass Mine(Linear):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["train", "bilstm", "--data", small_folder, "--output", "runs", *FAST]
    assert run(capsys, *command, "-o", "model.classify.head=./mine.py:Mine")[0] == 0
    (result,) = (tmp_path / "runs").glob("*.result.json")
    (tmp_path / "ran").unlink()
    code, _, err = run(capsys, "rerun", result, "--data", small_folder)
    assert (code, "code that is not installed" in err) == (2, True)
    code, _, _ = run(capsys, "rerun", result, "--data", small_folder, "--trust", "./mine.py:Mine")
    assert code == 0


def test_reproduce_shows_the_claim_and_ours_by_both_rules(capsys, small_folder, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "extends: bilstm\ntitle: mine\npublished:\n"
        "  - {dataset: iemocap, metric: weighted_f1, value: 99.9, where: table 1, selected_on: test}\n"
    )
    command = ["reproduce", recipe, "--data", small_folder, "--seeds", 2, "--output", tmp_path / "runs", *FAST]
    book = Path(__file__).parents[1] / "docs" / "examples" / "tracking" / "book.py"
    code, out, err = run(capsys, *command, "--workers", 1, "--track", f"{book}:Book")
    assert code == 0, err
    text = " ".join(out.split())
    assert "iemocap, weighted f1 99.9 (table 1): not reproduced: by its own rule it lies above our interval." in text
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.result.json")]
    assert {one["protocol"] for one in found} == {"test-oracle"}
    logged = (tmp_path / "runs" / "book.txt").read_text().splitlines()
    assert [line.rpartition(",")[2][:8] for line in logged] == [" seed 0:", " seed 1:"]
    code, _, err = run(capsys, "reproduce", "bilstm", "--data", small_folder)
    assert (code, "it quotes no published score" in err) == (2, True)
