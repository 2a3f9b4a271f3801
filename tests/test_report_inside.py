"""The report looks into models whose weights were kept, and tells of searches; a reader switches through both."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from comparison_results import fabricate
from test_cli import run as command
from test_inside import layered, own_nodes

import mer_zoo
from mer_zoo.comparison import insides, utterances
from mer_zoo.comparison.report import write_html
from mer_zoo.comparison.statistics import compare
from mer_zoo.data.loading import load
from mer_zoo.errors import MerZooError
from mer_zoo.results.result import read_result
from mer_zoo.training.experiment import keep, prepare
from mer_zoo.tuning.summary import FILE, Found, Trial, write_found
from mer_zoo.tuning.telling import searched, told

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

DATA = {"name": "synthetic", "dialogues": [6, 3, 4], "utterances": [4, 9]}
OWN = """
import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width, self.map = width, nn.Linear(width, width)

    def forward(self, x, layout):
        return self.map(x)
"""
EVIL = "</script><b>&"


def made(folder):
    """Train a model of each kind for an epoch, weights and results kept in a folder."""
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    by_path = f"{folder}/own.py:Mine"
    join = {"join": {"fusion": "concat"}, "classify": {"head": "linear"}}
    convolution = {"name": "pyg", "conv": "GCNConv", "out_width": 8}
    given = {
        EVIL: layered({"name": "differential_gat"}),
        "blind": "bilstm",
        "wrapped": layered(convolution),
        "own nodes": own_nodes("gat"),
        "by path": {"title": "t", "model": {"join": join["join"], "mine": {"encoder": by_path}} | join},
        "learner": "majority",
    }
    found = []
    for name, recipe in given.items():
        changes = [] if name == "learner" else ["training.epochs=2"]
        for seed in (0, 1):
            one = prepare(recipe, DATA, name=name, changes=changes, seed=seed)
            path = keep(one, one.run(), folder, weights=not (name == "blind" and seed == 0))
            found.append(read_result(path))
    return found, by_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    results, by_path = made(folder)
    return folder, results, by_path


def looked_into(runs, **how):
    folder, results, by_path = runs
    comparison = compare(results)
    dialogues = utterances.judged(comparison, load(DATA))
    how = {"trust": [by_path]} | how
    return dialogues, insides.inside(comparison, dialogues, insides.kept([folder]), **how)


def decoded(group, number):
    packed = group["maps"][number]
    steps = np.frombuffer(base64.b64decode(packed["data"]), np.int8)
    return steps.reshape(len(group["targets"]), len(group["sources"])) * packed["most"] / 127


def test_what_is_in_the_report_is_what_the_model_says(runs):
    folder, results, _ = runs
    dialogues, found = looked_into(runs)
    models = {one["name"]: one for one in found.models}
    assert found.models[0]["looks"]
    assert set(models) == {EVIL, "blind", "wrapped", "own nodes", "by path"}  # a learner has nothing inside
    for name, one in models.items():
        assert one["looks"] == (name in (EVIL, "own nodes"))
        assert [each["dialogue"] for each in one["dialogues"]] == [0, 1, 2]
    assert models["blind"]["dialogues"][0]["run"] == "seed 1"  # the one whose weights were kept
    kept = insides.kept([folder])
    for name in (EVIL, "own nodes"):
        run = next(run for run in results if (run.recipe_name, run.seed) == (name, 0))
        shown, said = models[name]["dialogues"][1], dialogues[1].said
        maps = mer_zoo.attention(kept[run.run], said)
        assert sum(len(group["maps"]) for group in shown["maps"]) == len(maps)
        each = [(group, number) for group in shown["maps"] for number in range(len(group["maps"]))]
        for one, (group, number) in zip(maps, each, strict=True):
            assert group["maps"][number]["name"] == one.name
            step = np.abs(one.matrix).max() / 127
            np.testing.assert_allclose(decoded(group, number), one.matrix, atol=step)
            assert [place for place, _ in group["targets"]] == [-1 if n.own else n.utterance for n in one.targets]
        says = mer_zoo.contributions(kept[run.run], said)
        for modality, values in says.contributions.items():
            np.testing.assert_allclose(shown["adds"][modality], 100 * values, atol=0.51)
        probability = np.array(run.predictions[said.id].probability)
        assert shown["decided"] == [run.dataset.label_names[i] for i in probability.argmax(-1)]
    assert any("Without attention between utterances" in note for note in found.notes)
    differential = models[EVIL]["dialogues"][0]["maps"][0]
    assert [one["name"] for one in differential["maps"]] == ["map 1", "map 2", "difference"]
    names = models["own nodes"]["dialogues"][0]["maps"][0]["targets"]
    assert (-1, "speaker 0") in names


def test_what_cannot_be_looked_into_says_why_and_how(runs):
    folder, results, by_path = runs
    _, found = looked_into(runs, trust=())
    assert "by path" not in [one["name"] for one in found.models]
    assert any(note.startswith("by path could not be asked") and by_path in note for note in found.notes)
    comparison = compare(results)
    dialogues = utterances.judged(comparison, load(DATA))
    nothing = insides.inside(comparison, dialogues, {})
    assert (nothing.models, len(nothing.notes)) == ([], 1)
    assert "--keep-weights" in nothing.notes[0]
    unheard = insides.inside(comparison, utterances.judged(comparison), insides.kept([folder]))
    assert (unheard.models, "--data" in unheard.notes[0]) == ([], True)
    learners = compare([run for run in results if run.recipe_name == "learner"])
    assert insides.inside(learners, utterances.judged(learners, load(DATA)), {}).notes == []


def test_a_model_that_breaks_takes_nobody_with_it(runs, tmp_path):
    folder, results, by_path = runs
    comparison = compare(results)
    weights = insides.kept([folder])
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    weights |= {run.run: broken for run in results if run.recipe_name == "wrapped"}
    found = insides.inside(comparison, utterances.judged(comparison, load(DATA)), weights, trust=[by_path])
    assert "wrapped" not in [one["name"] for one in found.models]
    assert len(found.models) == 4
    assert any(note.startswith("wrapped could not be asked") for note in found.notes)


def test_maps_take_no_more_room_than_they_may(runs, monkeypatch):
    monkeypatch.setattr(insides, "UTTERANCES", 3)
    _, found = looked_into(runs)
    for one in found.models:
        for shown in one["dialogues"]:
            assert shown["length"] <= 3
            for group in shown["maps"]:
                assert max(place for place, _ in group["targets"]) < 3
    for room in (0, 1000):
        _, found = looked_into(runs, room=room)
        sizes = [
            len(base64.b64decode(each["data"]))
            for one in found.models
            for shown in one["dialogues"]
            for group in shown["maps"]
            for each in group["maps"]
        ]
        assert sum(sizes) <= room
    assert all(shown["left_out"] >= 0 for one in found.models for shown in one["dialogues"])


SEARCH = Found(
    model=EVIL,
    data="synthetic",
    metric="weighted f1",
    seeds=(0,),
    trials=(
        Trial(number=0, changes={}, score=0.5, seconds=1.0),
        Trial(number=1, changes={"training.learning_rate": 0.00123456}, score=0.4, seconds=1.0),
        Trial(number=3, changes={"balancing": "opm"}, score=None, seconds=1.0),
        Trial(number=4, changes={"balancing": EVIL}, score=0.62, seconds=1.0),
        Trial(number=5, changes={"balancing": "agm"}, score=None, seconds=1.0, failed=True),
    ),
    refused=2,
    importance={"training.learning_rate": 0.8, "model.a.very.long.key_of_a_recipe": 0.2},
)


def test_a_search_is_told_with_its_numbers(tmp_path):
    write_found([SEARCH], tmp_path / FILE)
    (found,) = searched(tmp_path)
    text = " ".join(found.sentences)
    assert "5 trials trained: 3 complete, 1 stopped early, 1 failed. 2 draws did not fit together" in text
    assert "The best, trial 4, has 62.0 %, the recipe as it is 50.0 %: 12.0 points more" in text
    assert [figure.caption for figure in found.figures] == ["Trials, and the best so far", "What mattered (fANOVA)"]
    assert "best so far at the end 62.0" in found.figures[0].alt
    assert "training.learning_rate 80" in found.figures[1].alt
    ((_, headings, rows),) = found.tables
    assert headings[:2] == ("Trial", "Score, %")
    assert [row[0] for row in rows] == ["4", "0", "1"]
    assert rows[2][-1] == "training.learning_rate 0.001235"
    assert searched(tmp_path / "elsewhere") == []
    only = told(SEARCH.model_copy(update={"trials": SEARCH.trials[2:3], "importance": {}}))
    assert (only.figures, only.tables) == ((), ())  # nothing ended: nothing to draw
    same = told(SEARCH.model_copy(update={"trials": SEARCH.trials[:2]}))
    assert "it is the recipe as it is, which no change improved" in " ".join(same.sentences)
    for broken in ("[{}]", "[", '[{"model": 1}]'):
        (tmp_path / FILE).write_text(broken)
        with pytest.raises(MerZooError, match=r"search\.json: damaged .* Run `mer-zoo tune` again"):
            searched(tmp_path)


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    folder, results, by_path = runs
    path = tmp_path_factory.mktemp("page") / "report.html"
    how = {"datasets": [load(DATA)], "weights": insides.kept([folder]), "trust": [by_path], "searches": [told(SEARCH)]}
    return write_html(results, path, **how)


def test_the_page_escapes_what_it_is_given_and_draws_what_was_noted(page):
    text = page.read_text()
    assert "<b>" not in text
    assert "Lambda of &lt;/script&gt;&lt;b&gt;&amp;" in text
    assert "Lambda of blind" not in text
    assert text.count("Difference to the baseline") == 5  # of six models, one is the baseline
    assert "Dialogues: train 6, validation 3, test 4." in text
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert [type(json.loads(script)) for script in scripts] == [list, list]
    bare = write_html([fabricate()], page.with_name("bare.html")).read_text()
    assert "Inside the models" not in bare  # nothing to show: no section, but how to get it
    assert "--keep-weights" in bare


def test_a_reader_switches_model_dialogue_and_attention(page):
    import browser

    if browser.program() is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(browser.PROGRAMS)})")
    reader = browser.Browser()
    choose = (
        "(n, i) => { const s = document.querySelectorAll('.looker select')[n]; s.selectedIndex = i; "
        "s.dispatchEvent(new Event('change')); }"
    )
    rows, told_of = "document.querySelector('.looker tbody').textContent", "document.querySelector('.told').textContent"
    maps = "[...document.querySelectorAll('.maps figcaption')].map(x => x.textContent.split(',')[0])"
    pixels = "document.querySelector('.maps canvas').toDataURL()"
    try:
        for width in (1280, 390):
            reader.size(width)
            reader.open(page.as_uri())
            assert reader.run("document.documentElement.scrollWidth - window.innerWidth") <= 1
        names = reader.run("[...document.querySelectorAll('.looker select')[0].options].map(x => x.text)")
        reader.run(f"({choose})(0, {names.index(EVIL)})")
        assert reader.run(maps) == ["map 1", "map 2", "difference"]
        for chosen in (1, 2):  # dialogue, attention
            before = reader.run(rows), reader.run(pixels)
            reader.run(f"({choose})({chosen}, 1)")
            assert (reader.run(rows), reader.run(pixels)) != before
        over = (
            "(() => { const c = document.querySelector('.maps canvas'), b = c.getBoundingClientRect(); "
            "c.dispatchEvent(new PointerEvent('pointermove', {clientX: b.right - 4, clientY: b.top + 4})); "
            "return document.querySelector('.over').textContent; })()"
        )
        assert re.match(r"1 .* → \d+ .*: \d+ %$", reader.run(over))
        light = reader.run(pixels)
        reader.run("document.getElementById('theme').click()")
        assert reader.run(pixels) != light  # drawn anew, in the colours of the theme
        for number, name in enumerate(names):
            reader.run(f"({choose})(0, {number})")
            assert "The model of seed" in reader.run(told_of)
            looks = name in (EVIL, "own nodes")
            assert (len(reader.run(maps)) > 0) == looks
            assert ("no attention between utterances" in reader.run(told_of)) != looks
            hidden = "getComputedStyle(document.querySelector('.looker .attention')).display === 'none'"
            assert reader.run(hidden) != looks
        table = "[...document.querySelector('.minus').parentElement.nextElementSibling.querySelectorAll('tbody td')]"
        cells = f"{table}.map(x => x.textContent)"
        whole = reader.run(cells)
        reader.run("document.querySelector('.minus').click()")
        away = reader.run(cells)
        score = [float(cell.split()[0]) for cell in whole[1:7]]
        base = score[int(reader.run("document.querySelector('.minus').dataset.base"))]
        for value, cell, shown in zip(score, whole[1:7], away[1:7], strict=True):
            assert shown == cell or float(shown.replace("−", "-")) == pytest.approx(value - base, abs=0.051)
        assert sum(a != b for a, b in zip(whole, away, strict=True)) >= 5
        reader.run("document.querySelector('.minus').click()")
        assert reader.run(cells) == whole
        fold = "document.querySelector('figure details')"
        reader.run(f"{fold}.querySelector('summary').click()")
        assert reader.run(f"{fold}.open && {fold}.querySelector('img').offsetHeight > 0")
        assert reader.troubles == []
    finally:
        reader.close()


def test_the_command_finds_weights_and_searches_beside_the_runs(runs, capsys, tmp_path):
    folder, _, by_path = runs
    write_found([SEARCH], folder / FILE)
    (tmp_path / "data.yaml").write_text(json.dumps(DATA))
    page = tmp_path / "page.html"
    code, _, err = command(capsys, "report", folder, "--output", page, "--trust", by_path)
    assert code == 0, err
    assert "Search of &lt;/script&gt;" in page.read_text()
    assert "`--data`" in page.read_text()
    assert Path(folder / FILE).exists()
