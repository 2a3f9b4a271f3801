"""The committed measurements of the zoo, and the page made of them."""

import csv
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

pytest.importorskip("pygments")
from docs.generator import measured
from mer_zoo.comparison import suite
from mer_zoo.comparison.summary import read_csv
from mer_zoo.registry import resources

ROWS = resources.folder("baselines") / "results" / "zoo.csv"


def test_the_page_shows_every_model_and_dataset_of_the_rows():
    page = measured.pages()["models/measured.md"]
    models = suite.read("zoo").models
    for row in read_csv(ROWS):
        assert row["model"] in models
        assert row["dataset"] in measured.DATA
        recipe = models[row["model"]].recipe
        assert f"| [{row['model']}](#recipe-{recipe}) |" in page


def test_every_run_stands_there_once_and_was_chosen_on_validation():
    rows = read_csv(ROWS)
    runs = [(row["dataset"], row["model"], row["seed"]) for row in rows]
    assert len(set(runs)) == len(runs)
    assert {row["protocol"] for row in rows} == {"validation"}


def test_every_model_learns_what_the_classes_shares_do_not_tell():
    scores = {}
    for row in read_csv(ROWS):
        scores.setdefault((row["dataset"], row["model"]), []).append(float(row["weighted_f1"]))
    for (data, model), found in scores.items():
        if model != "Majority class":
            assert statistics.fmean(found) > 1.2 * max(scores[data, "Majority class"]), (data, model)


def test_who_is_not_above_the_yardstick_is_named():
    rows = [r for r in read_csv(ROWS) if r["dataset"] == "synthetic"]
    means = {
        m: statistics.fmean(float(r["weighted_f1"]) for r in rows if r["model"] == m)
        for m in {r["model"] for r in rows}
    }
    section = measured.pages()["models/measured.md"].split("## The synthetic dialogues")[1].split("\n## ")[0]
    named = section.split("sees one utterance alone: ")[1].split(".")[0].split(", ")
    wanted = {m for m, score in means.items() if score < means["Logistic regression"]} - {"Majority class"}
    assert set(named) == wanted


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    rows = read_csv(ROWS)
    kept = [
        r for r in rows if r["dataset"] == "synthetic" and (r["model"], r["seed"]) not in {("SDT", "1"), ("SDT", "2")}
    ]
    kept = [r for r in kept if r["model"] != "COGMEN"]
    (tmp_path / "results").mkdir()
    with (tmp_path / "results/zoo.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    (tmp_path / "suites").symlink_to(resources.folder("baselines") / "suites")
    for folder in (f for f in resources.folder("baselines").iterdir() if f.name not in ("results", "suites")):
        (tmp_path / folder.name).symlink_to(folder)
    folders = {"registry": resources.folder("registry"), "baselines": tmp_path}
    monkeypatch.setattr(resources, "folder", folders.get)
    page = measured.pages()["models/measured.md"]
    assert "SDT 1" in page.split("Fewer seeds: ")[1].split(".")[0]
    assert "Not measured: " in page
    assert "COGMEN" in page.split("Not measured: ")[1]
    assert "## MOSI" not in page
