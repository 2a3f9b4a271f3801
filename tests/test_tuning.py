"""Searches: what may be changed, that test dialogues are out of reach, and that a stopped search goes on."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import yaml
from test_cli import run

import mer_zoo
from mer_zoo.comparison.workers import Lost
from mer_zoo.data.loading import load
from mer_zoo.errors import MerZooError
from mer_zoo.model import recipe
from mer_zoo.training.experiment import prepare
from mer_zoo.tuning import summary, trials
from mer_zoo.tuning.search import FILE, Blind, Search
from mer_zoo.tuning.space import narrowed, space_of

optuna = pytest.importorskip("optuna", reason="needs the extra tune")

SMALL = {"name": "synthetic", "dialogues": [6, 3, 4], "utterances": [3, 8]}
FAST = ("training.epochs=2",)


def search(folder, name="bilstm", only=("training.*",), budget=4, data=SMALL, extra=()):
    return Search.of(name, data, folder=folder, name=name, changes=[*FAST, *extra], keys=only, trials=budget)


def mine(tmp_path, block):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: amb_dsgdn\ntitle: mine\nsearch:\n{block}")
    return str(path)


def test_a_search_block_says_what_may_be_changed(tmp_path):
    block = "  training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}\n"
    block += "  model.context.encoder.heads: [2, 4]\n  balancing: [none, {name: modality_dropout, probability: 0.2}]\n"
    block += "  graph.window: {low: 2, high: 8, step: 2}\n"
    name = mine(tmp_path, block)
    space = space_of(prepare(name, SMALL), name)
    drawn = [space.draw(optuna.trial.FixedTrial(
        {"training.learning_rate": 0.001, "model.context.encoder.heads": "4", "graph.window": 4, "balancing": value}
    )) for value in ('"none"', '{"name": "modality_dropout", "probability": 0.2}')]  # fmt: skip
    assert drawn[0] == {
        "balancing": "none", "graph.window": 4, "model.context.encoder.heads": 4, "training.learning_rate": 0.001,
    }  # fmt: skip
    assert drawn[1]["balancing"] == {"name": "modality_dropout", "probability": 0.2}


def test_without_a_block_types_and_parts_that_fit_are_the_space():
    first = prepare("dialoguegcn", SMALL)
    keys = {choice.key: choice.values for choice in space_of(first, "dialoguegcn").choices}
    layers = next(values for key, values in keys.items() if key.endswith(".layer"))
    assert len(layers) > 3
    place = next(key for key in keys if key.endswith(".layer"))
    for other in layers:  # what is offered can be assembled
        prepare("dialoguegcn", SMALL, changes=[f"{place}={other}"]).rehearse()
    assert "training.learning_rate" in keys
    assert not any(key.startswith(("training.epochs", "training.select")) for key in keys)


def test_a_part_that_was_replaced_has_none_of_the_old_settings():
    first = prepare("amb_dsgdn", SMALL)
    (space,) = narrowed([space_of(first, "amb_dsgdn")], ["balancing*"])
    trial = optuna.trial.FixedTrial({"balancing": '"ogm_ge"'})  # which knows no setting of another
    assert space.draw(trial) == {"balancing": "ogm_ge"}


FAULTS = {
    "an empty range": ("  training.learning_rate: {low: 2.0, high: 1.0}\n", "low 2.0 is above high 1.0"),
    "a log of nothing": ("  training.learning_rate: {low: 0.0, high: 1.0, log: true}\n", "`log` needs a low above 0"),
    "no values": ("  training.learning_rate: []\n", "at least 1"),
    "an unknown word": ("  training.learning_rate: {low: 1, hihg: 2}\n", "Did you mean 'high'"),
    "a fraction as a step": ("  graph.window: {low: 1, high: 4, step: 0.5}\n", "Use a whole step"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_block_is_refused_with_its_place(tmp_path, name):
    block, message = FAULTS[name]
    with pytest.raises(MerZooError, match=r"mine.yaml:4:\d+.*" + re.escape(message)):
        recipe.read(mine(tmp_path, block))


def test_no_trial_can_reach_a_test_dialogue(tmp_path):
    first = prepare("bilstm", SMALL, changes=FAST)
    blind = Blind(**vars(first))
    task = blind.task()
    test = set(first.task().split.test)
    assert not test & {dialogue.id for dialogue in task.dataset}
    assert task.split.test == task.split.validation
    # poison: other test dialogues change no trial
    scores = []
    for poison in (0.0, 1e6):
        data = load(SMALL)
        spoilt = [
            replace(d, features={m: x + np.float32(poison) for m, x in d.features.items()}) if d.id in test else d
            for d in data
        ]
        made = search(tmp_path / str(poison), data=replace(data, conversations=tuple(spoilt)), budget=3)
        made.storage.parent.mkdir()
        trials.run(made, workers=1)
        scores.append([trial.value for trial in made.trained()])
    assert scores[0] == scores[1]


def test_the_first_trial_is_the_recipe_as_it_is(tmp_path):
    made = search(tmp_path, budget=3)
    trials.run(made, workers=1)
    found = summary.found(made)
    alone = prepare("bilstm", SMALL, changes=FAST).run().result.metrics.validation.weighted_f1
    assert found.trials[0].changes == {}
    assert found.default.score == pytest.approx(alone)
    assert found.best.score >= found.default.score
    assert [trial.changes != {} for trial in found.trials] == [False, True, True]
    path = summary.write_best(made, found, tmp_path / "best.yaml")
    again = prepare(str(path), SMALL)
    assert again.run().result.metrics.validation.weighted_f1 == pytest.approx(found.best.score)
    assert "published" not in yaml.safe_load(path.read_text())


def test_another_recipe_or_space_is_another_search(tmp_path):
    one = search(tmp_path)
    others = [search(tmp_path, only=["training.learning_rate"]), replace(one, seeds=(0, 1))]
    assert len({each.study_name for each in (one, *others)}) == 3
    trials.run(replace(one, budget=1), workers=1)
    assert len(one.trained()) == 1
    assert others[0].trained() == []


def test_draws_that_do_not_fit_cost_no_trial(tmp_path):
    # seven heads fit into no width of 64
    name = mine(tmp_path, "  model.context.encoder.heads: [4, 7]\n")
    made = search(tmp_path, name, None, 6)
    trials.run(made, workers=1)
    found = summary.found(made)
    assert len(found.trials) == 6
    assert all(trial.changes.get("model.context.encoder.heads") in (None, 4) for trial in found.trials)
    assert found.refused > 0


def test_a_space_where_nothing_fits_says_why(tmp_path):
    name = mine(tmp_path, "  model.context.encoder.heads: [7]\n")
    made = search(tmp_path, name, None, 3)
    with pytest.raises(MerZooError, match=r"30 draws in a row do not fit together; the last: .*heads"):
        trials.run(made, workers=1)


def test_a_run_that_diverges_is_a_trial_that_failed(tmp_path):
    name = mine(tmp_path, "  training.learning_rate: [1.0e+30]\n")
    made = search(tmp_path, name, None, 2)
    trials.run(made, workers=1)
    found = summary.found(made)
    assert [("failed" in trial.user_attrs) for trial in made.trained()] == [False, True]
    assert [trial.score is None for trial in found.trials] == [False, True]
    assert found.best.changes == {}


def test_a_search_that_was_killed_goes_on(tmp_path):
    command = [sys.executable, "-m", "mer_zoo", "tune", "bilstm", "--trials", "5", "--keys", "training.*"]
    command += ["--seeds", "1", "--workers", "1", "--output", str(tmp_path), "-o", "training.epochs=3"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    storage = tmp_path / FILE
    for _ in range(2400):  # a busy machine may need minutes to begin
        time.sleep(0.1)
        assert process.poll() is None
        if storage.exists() and _ended(storage) >= 2:
            break
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    before = _ended(storage)
    assert 2 <= before < 5
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert _ended(storage) == 5
    assert "bilstm on synthetic: 5 trials" in " ".join(done.stdout.split())


@pytest.mark.parametrize("at", [0, 2])
def test_the_trial_that_a_killed_search_was_at_is_tried_again(tmp_path, monkeypatch, at):
    made = [search(tmp_path / name, budget=4) for name in ("killed", "undisturbed")]
    for one in made:
        one.storage.parent.mkdir()
    train, calls = trials.train, []

    def killed(stack):
        calls.append(stack)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        return train(stack)

    with monkeypatch.context() as patched:
        patched.setattr(trials, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            trials.run(made[0], workers=1)
    assert [trial.state.name for trial in made[0].study().trials].count("RUNNING") == 1
    for one in made:
        trials.run(one, workers=1)
    found, expected = (summary.found(one) for one in made)
    assert [(t.changes, t.score) for t in found.trials] == [(t.changes, t.score) for t in expected.trials]
    assert found.default == found.trials[0]


def test_two_processes_at_one_search_make_its_trials_once(tmp_path):
    made, heard = search(tmp_path, budget=6), []
    both = [Thread(target=trials.run, args=[made], kwargs={"workers": 1, "watch": heard.append}) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(heard) == len(made.trained()) == 6


def test_trials_are_stopped_where_optuna_would_stop_them():
    rng = np.random.default_rng(0)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=trials.ENDED_FIRST, n_warmup_steps=trials.EPOCHS_FIRST)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    stopped = 0
    for _ in range(20):
        trial, bar, curve = study.ask(), trials._bar(study), []
        behind = False
        for epoch in range(int(rng.integers(6, 12))):
            trial.report(score := float(rng.random()) * (epoch + 3), epoch)
            curve.append(score)
            behind = trial.should_prune()
            assert (max(curve) < bar.get(epoch, -1.0)) == behind
            if behind:
                break
        stopped += behind
        study.tell(trial, state=optuna.trial.TrialState.PRUNED if behind else None, values=None if behind else score)
    assert 0 < stopped < 20


def test_a_trial_behind_the_others_is_stopped_early(tmp_path):
    blind = replace(search(tmp_path).blind({"training.epochs": 20}), bar={7: 1.0, 8: 1.1})
    ended = trials.train([blind])
    assert (ended.scores, ended.failed) == ((), "")
    assert list(ended.curve)[-1] in (7, 8)  # at 7 only if 7 epochs do not reach every label
    assert trials.train([replace(blind, bar={})]).scores != ()


def test_a_lost_worker_costs_its_trial_alone(tmp_path):
    made = search(tmp_path, budget=3)

    def loses_the_second(work, stacks):
        for number, stack in enumerate(stacks):
            yield stack, Lost("its worker was lost") if number == 1 else work(stack)

    trials.run(made, executor=loses_the_second)
    assert [trial.user_attrs.get("failed") for trial in made.trained()] == [None, "its worker was lost", None]


def test_a_search_none_of_whose_trials_ends_says_why(tmp_path):
    made = search(tmp_path, budget=2)
    with pytest.raises(MerZooError, match="'bilstm': no trial came to its end; the first: its worker was lost"):
        trials.run(made, executor=lambda work, stacks: ((stack, Lost("its worker was lost")) for stack in stacks))


def _ended(storage):
    """How many trials have ended; only reads, or it would make the tables while the search makes them."""
    try:
        with closing(sqlite3.connect(f"file:{storage}?mode=ro", uri=True, timeout=60)) as there:
            return there.execute("select count(*) from trials where state in ('COMPLETE', 'PRUNED')").fetchone()[0]
    except sqlite3.OperationalError:  # there is no such table yet
        return 0


def test_tune_compares_the_best_with_the_recipe(capsys, small_folder, tmp_path):
    command = ["tune", "bilstm", "--data", small_folder, "--trials", 3, "--seeds", 2, "--workers", 2]
    command += ["--keys", "training.*", "--output", tmp_path, "-o", "training.epochs=2"]
    code, out, err = run(capsys, *command)
    assert code == 0, err
    assert "bilstm, tuned" in out
    assert "3 trials" in " ".join(out.split())
    found = json.loads((tmp_path / "search.json").read_text())
    assert len(found[0]["trials"]) == 3
    again, out, _ = run(capsys, *command)
    assert again == 0
    assert json.loads((tmp_path / "search.json").read_text()) == found


def test_a_suite_is_searched_model_by_model(capsys, small_folder, tmp_path):
    suite = tmp_path / "suite.yaml"
    rows = {
        "a/b": {"recipe": "bilstm", "change": {"training.clip": 1.0}},
        "a b": {"recipe": "bilstm", "change": {"training.clip": 2.0}},
        "floor": "majority",
    }
    suite.write_text(yaml.safe_dump({"title": "t", "data": [str(small_folder)], "models": rows, "seeds": 1}))
    output = tmp_path / "50%#?x=y"  # which an address would not keep
    command = ["tune", suite, "--trials", 2, "--workers", 1, "--output", output, "-o", "training.epochs=1"]
    code, out, err = run(capsys, *command, "--keys", "training.learning_rate")
    assert code == 0, err
    assert "floor: nothing to search; it is compared as it is." in out
    assert (output / FILE).is_file()
    # two files, though both names are one word
    found = [recipe.read(str(path)).recipe.training.clip for path in sorted(output.glob("a_b*.yaml"))]
    assert sorted(found) == [1.0, 2.0]


@pytest.mark.parametrize("other", ["A, tuned", 195 * "A"])
def test_a_name_that_what_is_found_cannot_have_is_refused_before_any_trial(capsys, small_folder, tmp_path, other):
    suite = tmp_path / "suite.yaml"
    rows = {"A": "bilstm", other: "bilstm"}
    suite.write_text(yaml.safe_dump({"title": "t", "data": [str(small_folder)], "models": rows, "seeds": 1}))
    code, _, err = run(capsys, "tune", suite, "--trials", 1, "--output", tmp_path / "runs")
    assert (code, err.count("\n")) == (2, 1)
    assert "what is found gets ', tuned' behind its name" in err


LEDGER = """
import json
import os
from dataclasses import asdict
from pathlib import Path


class Ledger:
    # a line of JSON per run; its process is killed once, before it writes the third

    def __init__(self, results: str) -> None:
        self.path, self.killed = Path(results, "ledger.txt"), Path(results, "killed")

    def log(self, run) -> None:
        if self.path.exists() and len(self.path.read_text().splitlines()) == 2 and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), 9)
        with self.path.open("a") as file:
            file.write(json.dumps({**asdict(run), "files": sorted(run.files), "finished": str(run.finished)}) + "\\n")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_every_trial_is_tracked_once_also_by_a_search_that_was_killed(capsys, small_folder, tmp_path):
    (tmp_path / "own.py").write_text(LEDGER)
    name = mine(tmp_path, "  training.learning_rate: [1.0e-3, 1.0e-2, 1.0e+30]\n")
    command = ["tune", name, "--trials", "5", "--seeds", "1", "--workers", "1", "--output", str(tmp_path / "runs")]
    command += ["-o", "training.epochs=2", "--data", str(small_folder), "--track", f"{tmp_path / 'own.py'}:Ledger"]
    killed = subprocess.run([sys.executable, "-m", "mer_zoo", *command], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for _ in range(2):
        assert run(capsys, *command)[0] == 0
    told = [json.loads(line) for line in (tmp_path / "runs" / "ledger.txt").read_text().splitlines()]
    assert len({one["id"] for one in told}) == len(told) == 5 + 2
    (found,) = json.loads((tmp_path / "runs" / "search.json").read_text())
    logged = {one["settings"]["trial"]: one for one in told if "trial" in one["settings"]}
    assert sorted(logged) == [trial["number"] for trial in found["trials"]]
    states = set()
    for trial in found["trials"]:
        one = logged[trial["number"]]
        assert one["name"] == f"mine on {found['data']}, trial {trial['number']}"
        assert one["measures"].get("validation/weighted_f1") == trial["score"]
        assert not any(name.startswith("test") for name in one["measures"])
        for key, value in trial["changes"].items():
            assert one["settings"][f"recipe.{key}"] == value
        state = "failed" if trial["failed"] else "complete"
        assert (one["settings"]["state"], bool(one["failure"])) == (state, trial["failed"])
        assert list(one["epochs"]) == ([] if trial["failed"] else ["0", "1"])
        states.add(state)
    assert states == {"complete", "failed"}
    assert [one["files"] for one in told if "trial" not in one["settings"]] == 2 * [["result.json"]]


def test_in_python(tmp_path, small):
    own = replace(small, name="mine")
    how = {"keys": ["training.*", "balancing"], "change": {"training.epochs": 2}, "output": tmp_path, "workers": 1}
    first = mer_zoo.tune("bilstm", own, trials=2, **how)
    found = mer_zoo.tune("bilstm", own, trials=4, **how)
    assert found.trials[:2] == first.trials  # it went on
    assert len(found.trials) == 4
    assert found.data == "mine"
    assert found.change == found.best.changes
    for trial in found.trials:
        outcome = mer_zoo.train("bilstm", own, change={"training.epochs": 2, **trial.changes})
        assert outcome.result.metrics.validation.weighted_f1 == pytest.approx(trial.score)
    assert str(found).startswith("bilstm on mine: 4 trials, 0 stopped early; best validation weighted f1 ")


def test_mistakes_in_python(tmp_path):
    with pytest.raises(MerZooError, match="0 trials: want at least 1"):
        mer_zoo.tune("bilstm", SMALL, trials=0, output=tmp_path)
    with pytest.raises(MerZooError, match="0 workers: want at least 1"):
        mer_zoo.tune("bilstm", SMALL, workers=0, output=tmp_path)
    with pytest.raises(MerZooError, match=r"^keys trainig\.\*: nothing that could be searched fits it\."):
        mer_zoo.tune("bilstm", SMALL, keys=["trainig.*"], output=tmp_path)
    with pytest.raises(MerZooError, match="majority: nothing to search"):
        mer_zoo.tune("majority", SMALL, output=tmp_path)
    assert list(tmp_path.iterdir()) == []


MISTAKES = {
    "no such thing": (["tune", "bilsm"], "Did you mean 'bilstm'"),
    "the oracle": (["tune", "bilstm", "--protocol", "test-oracle"], "a search never sees test dialogues"),
    "no trials": (["tune", "bilstm", "--trials", "0"], "--trials 0: want at least 1"),
    "a pattern that fits nothing": (["tune", "bilstm", "--keys", "trainig.*"], "--keys trainig.*: nothing"),
    "nothing to search": (["tune", "majority"], "majority: nothing to search"),
    "no such tracker": (["tune", "bilstm", "--track", "mlfow"], "Did you mean 'mlflow'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_message(capsys, tmp_path, name):
    arguments, message = MISTAKES[name]
    code, _, err = run(capsys, *arguments, "--output", tmp_path)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err


def test_a_file_that_is_no_search_is_named(tmp_path):
    (tmp_path / FILE).write_text("not a database at all, but long enough to look at")
    with pytest.raises(MerZooError, match=r"search.db: cannot be used for a search"):
        search(tmp_path).study()


def test_searches_that_begin_at_once_in_one_folder_make_its_file_once(tmp_path):
    others = [replace(search(tmp_path), seeds=(seed,)) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        names = list(threads.map(lambda one: one.study().study_name, others))
    assert names == [one.study_name for one in others]


def test_a_disk_that_fills_up_loses_no_trial(tmp_path, monkeypatch):
    here = search(tmp_path, budget=2)
    trials.run(here, workers=1)
    connected = Search._connected

    def full(self):
        connection = connected(self)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(Search, "_connected", full)
        with pytest.raises(MerZooError, match=r"disk is full\). If the disk is full, make room"):
            trials.run(replace(here, budget=40), workers=1)
    kept = len(here.trained())
    assert kept >= 2
    trials.run(replace(here, budget=kept + 1), workers=1)
    assert len(here.trained()) == kept + 1


@pytest.mark.parametrize("select", ["loss", "accuracy", "numpy:trace"])
def test_a_search_goes_by_what_chooses_the_epoch(tmp_path, select):
    first = search(tmp_path, budget=2)
    made = search(tmp_path, budget=2, extra=[f"training.select={select}"])
    trials.run(made, workers=1)
    # losses of different parts cannot be compared
    assert made.metric == ("weighted_f1" if select == "loss" else select)
    assert len([trial for trial in made.trained() if trial.value is not None]) == 2
    assert made.study_name != first.study_name
    assert str(summary.found(made))
