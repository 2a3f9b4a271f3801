"""Trackers hear of each run once, what they wrote can be read back, and none of them can do a run any harm."""

import json
import shutil
import socket
import struct
import sys
import time
from dataclasses import replace

import pytest
from test_cli import run

import mer_zoo
from mer_zoo.cli import main
from mer_zoo.comparison.executing import Listener, execute
from mer_zoo.comparison.suite import checked, experiments
from mer_zoo.comparison.tracking import LOGGED, Tracking, choose
from mer_zoo.errors import MerZooError

DATA = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
BROKEN = {"recipe": "bilstm", "change": {"training.learning_rate": 1e30}}
SUITE = {"title": "a few", "data": [DATA], "seeds": 1, "change": {"training.epochs": 3}}


def planned(models, **changed):
    return experiments(checked({**SUITE, "models": models, **changed}))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return a folder, and by name what became of a model that is trained, one that is not, and one that breaks."""
    folder = tmp_path_factory.mktemp("ran")
    models = {"BiLSTM": "bilstm", "Majority": "majority", "Broken": BROKEN}
    results, failures = execute(planned(models, protocol="test-oracle"), folder, workers=1, keep_weights=True)
    return folder, {one.recipe_name: one for one in results} | {one.experiment.name: one for one in failures}


@pytest.fixture
def copied(ran, tmp_path):
    """Return the same in a folder of its own."""
    return shutil.copytree(ran[0], tmp_path / "runs"), ran[1]


def tell(tracker, folder, outcomes):
    """Log runs as a command does; returns what was said."""
    said = []
    Tracking(choose(tracker), folder, said.append).finish(outcomes)
    return said


def twice(tracker, folder, outcomes):
    """Log runs, and again as if nobody knew that they are logged already."""
    assert tell(tracker, folder, outcomes) == []
    (folder / LOGGED).unlink()
    assert tell(tracker, folder, outcomes) == []


def test_tensorboard(copied):
    pytest.importorskip("tensorboard", reason="needs the extra track")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder, outcomes = copied
    twice("tensorboard", folder, outcomes.values())
    files = sorted(folder.glob("tensorboard/*/events.out.tfevents.*"))
    assert [path.parent.name.split("_on_")[0] for path in files] == ["BiLSTM", "Broken", "Majority"]
    bilstm, broken, majority = (EventAccumulator(str(path)).Reload() for path in files)
    result = outcomes["BiLSTM"]
    for name in ("train_loss", "validation_weighted_f1", "test_weighted_f1"):
        told = [(event.step, event.value) for event in bilstm.Scalars(name)]
        assert told == [(one["epoch"], pytest.approx(one[name])) for one in result.history], name
    (score,) = bilstm.Scalars("test/weighted_f1")
    assert (score.step, score.value) == (result.chosen_epoch, pytest.approx(result.metrics.test.weighted_f1))
    (oracle,) = bilstm.Scalars("test_chosen_on_test/weighted_f1")
    assert oracle.value == pytest.approx(result.oracle_metrics.weighted_f1)
    start = HParamsPluginData.FromString(bilstm.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    settings = start.session_start_info.hparams
    assert settings["recipe.training.epochs"].number_value == 3
    assert settings["protocol"].string_value == "test-oracle"
    assert broken.Tags()["scalars"] == []
    assert b"learning_rate" in broken.Tensors("failure/text_summary")[0].tensor_proto.string_val[0]
    assert "train_loss" not in majority.Tags()["scalars"]


def test_mlflow(copied, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra track")
    folder, outcomes = copied
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://nowhere.invalid")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was touched"))
    twice({"name": "mlflow", "experiment": "emotions"}, folder, outcomes.values())
    client = mlflow.MlflowClient(f"sqlite:///{(folder / 'mlflow' / 'mlflow.db').as_posix()}")
    (experiment,) = (one for one in client.search_experiments() if one.name == "emotions")
    found = {one.data.params["model"]: one for one in client.search_runs([experiment.experiment_id])}
    assert {name: one.info.status for name, one in found.items()} == {
        **{"BiLSTM": "FINISHED", "Majority": "FINISHED", "Broken": "FAILED"}
    }
    bilstm, result = found["BiLSTM"], outcomes["BiLSTM"]
    told = [(one.step, one.value) for one in client.get_metric_history(bilstm.info.run_id, "train_loss")]
    assert told == [(one["epoch"], one["train_loss"]) for one in result.history]
    assert bilstm.data.metrics["test/weighted_f1"] == result.metrics.test.weighted_f1
    assert bilstm.data.metrics["chosen_epoch"] == result.chosen_epoch
    assert bilstm.data.params["recipe.training.epochs"] == "3"
    assert bilstm.data.params["protocol"] == "test-oracle"
    assert bilstm.data.tags["mer_zoo.run"] == result.run
    assert bilstm.info.end_time == int(1000 * result.finished.timestamp())
    names = [one.path for one in client.list_artifacts(bilstm.info.run_id)]
    assert names == ["model.safetensors", "result.json"]
    assert "learning_rate" in found["Broken"].data.tags["mer_zoo.failure"]
    # copies of result files are no results
    assert len(list(folder.rglob("*.result.json"))) == 2
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(MerZooError, match="experiment 'emotions' was deleted"):
        tell({"name": "mlflow", "experiment": "emotions"}, folder, [])


def records(path):
    """Yield the records of a file of W&B: a log in blocks, as LevelDB writes it."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


def test_wandb(copied, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb, of the extra track")
    folder, outcomes = copied
    switches = {"MODE": "disabled", "DISABLED": "true", "PROJECT": "other", "DIR": "/nowhere", "API_KEY": 40 * "5"}
    for name, value in switches.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    hook = sys.excepthook
    twice("wandb", folder, outcomes.values())
    assert sys.excepthook is hook
    found = {}
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        for _ in range(600):  # W&B writes on in a process of its own
            every = list(records(path))
            if any(one.HasField("exit") for one in every):
                break
            time.sleep(0.05)
        (of,) = (one.run for one in every if one.HasField("run"))
        found[of.run_group] = every, of, path.parent
        assert of.project == "mer_zoo"
    assert sorted(found) == ["BiLSTM", "Broken", "Majority"]  # and no more folders, though logged twice
    every, of, home = found["BiLSTM"]
    result = outcomes["BiLSTM"]
    assert (of.run_id, of.display_name) == (result.run, "BiLSTM on synthetic, seed 0")
    config = {one.key: json.loads(one.value_json) for one in of.config.update}
    assert config["recipe.training.epochs"] == 3
    told = []
    for one in every:
        items = {key: json.loads(item.value_json) for item in one.history.item for key in item.nested_key or [item.key]}
        told += [items["train_loss"]] if "train_loss" in items else []
    assert told == [one["train_loss"] for one in result.history]
    summary = {}
    for one in every:
        summary |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in one.summary.update}
    assert summary["test/weighted_f1"] == result.metrics.test.weighted_f1
    assert summary["chosen_epoch"] == result.chosen_epoch
    assert "learning_rate" in json.dumps([str(one) for one in found["Broken"][0]])
    assert sorted(path.name for path in (home / "files").iterdir()) == ["model.safetensors", "result.json"]
    codes = {name: [one.exit.exit_code for one in r if one.HasField("exit")] for name, (r, *_) in found.items()}
    assert codes == {"BiLSTM": [0], "Majority": [0], "Broken": [1]}
    assert all(b"5555555555" not in path.read_bytes() for path in folder.glob("wandb/**/*") if path.is_file())


OWN = """
import os
from pathlib import Path


class Own:
    '''A line per run.

    Args:
        results: folder of the result files (a fact).
        fails: which models it fails for.
        how: it fails.
    '''

    def __init__(self, results: str, *, fails: list[str] = [], how: str = "error") -> None:
        self.path, self.fails, self.how = Path(results, "own.txt"), fails, how

    def log(self, run) -> None:
        model = run.settings["model"]
        if model in self.fails:
            if self.how == "exit":
                raise SystemExit(3)
            raise ConnectionError("no answer from http://me:secret@host/runs")
        with self.path.open("a") as file:
            print(os.getpid(), model, run.seconds > 0, sorted(run.files), run.failure[:6], file=file)
"""


@pytest.fixture
def own(tmp_path):
    """Return the path of a tracker of one's own."""
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return f"{path}:Own"


def lines(folder):
    return [line.split(" ", 2)[1:] for line in (folder / "own.txt").read_text().splitlines()]


def test_every_run_is_told_once_by_the_process_that_asked_for_it(own, tmp_path):
    import os

    models = {"Majority": "majority", "Logistic": "logistic_regression", "Broken": BROKEN}
    folder, said = tmp_path / "runs", []
    for _ in range(2):
        tracking = Tracking(choose(own), folder, said.append)
        results, failures = execute(planned(models), folder, workers=2, listener=tracking.listener(Listener()))
        assert tracking.finish([*results, *failures])
    assert said == []
    told = sorted((folder / "own.txt").read_text().splitlines())
    done = [f"{os.getpid()} {model} True ['result.json'] " for model in ("Logistic", "Majority")]
    assert told == sorted([*done, *2 * [f"{os.getpid()} Broken False [] Broken"]])  # it broke twice


def test_what_was_there_before_is_told_too_and_what_is_made_again_again(copied, own):
    folder, outcomes = copied
    tell(own, folder, outcomes.values())
    tell(own, folder, outcomes.values())
    assert [model for model, _ in lines(folder)] == ["BiLSTM", "Majority", "Broken", "Broken"]
    later = outcomes["BiLSTM"].model_copy(update={"finished": outcomes["Majority"].finished})
    tell(own, folder, [later])
    tell([own, {"name": own, "how": "exit"}], folder, [later])  # another tracker, by its settings
    assert [model for model, _ in lines(folder)][4:] == ["BiLSTM", "BiLSTM"]


def test_a_process_killed_while_it_notes_what_it_told_harms_nothing(copied, own):
    folder, outcomes = copied
    tell(own, folder, [outcomes["BiLSTM"], outcomes["Majority"]])
    text = (folder / LOGGED).read_text()
    key = json.loads(text.splitlines()[0])[0]
    (folder / LOGGED).write_bytes(
        b'5\n{"a"\n\xff\n' + json.dumps([key, ["x"], 1]).encode() + b"\n" + text[:-30].encode()
    )
    tell(own, folder, [outcomes["BiLSTM"], outcomes["Majority"]])
    tell(own, folder, [outcomes["BiLSTM"]])
    assert [model for model, _ in lines(folder)] == ["BiLSTM", "Majority", "Majority"]


@pytest.mark.parametrize(
    ("how", "why"), [("error", "ConnectionError: no answer from http://host/runs ("), ("exit", "SystemExit: 3 (")]
)
def test_a_tracker_that_fails_harms_no_run(copied, own, how, why):
    folder, outcomes = copied
    before = {path: path.read_bytes() for path in folder.iterdir()}
    said = tell({"name": own, "fails": ["Majority"], "how": how}, folder, outcomes.values())
    assert [model for model, _ in lines(folder)] == ["BiLSTM"]
    assert said[0].startswith(f"tracker/{own}: Majority, seed 0, is not logged: {why}")
    assert "own.py:2" in said[0]  # the line
    assert said[1:] == [f"tracker/{own}: 2 of 3 runs are not logged. Run it again."]
    assert {path: path.read_bytes() for path in before} == before
    assert "secret" not in "".join(path.read_text(errors="ignore") for path in folder.iterdir())
    tell(own, folder, outcomes.values())


def test_commands(capsys, own, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(json.dumps({**SUITE, "models": {"A": "majority", "B": "logistic_regression"}, "change": {}}))
    folder = tmp_path / "runs"
    command = ["compare", suite, "--output", folder, "--workers", 1, "--track"]
    code, out, err = run(capsys, *command, json.dumps({"name": own, "fails": ["A"]}))
    assert code == 1
    assert "A, seed 0, is not logged: ConnectionError: no answer from http://host/runs" in "".join(err.split("\n"))
    assert "Report: " in out
    assert len(list(folder.glob("*.result.json"))) == 2
    assert run(capsys, *command, own)[0] == 0
    assert [model for model, _ in lines(folder)] == ["A", "B"]
    train = ["train", "majority", "--data", "synthetic", "--output", tmp_path / "one", "--track"]
    code, _, err = run(capsys, *train, json.dumps({"name": own, "fails": ["majority"]}))
    assert code == 1
    assert err.count("is not logged") == 1
    assert run(capsys, *train, own)[0] == 0
    assert lines(tmp_path / "one") == [["majority", "True ['result.json'] "]]
    code, _, err = run(capsys, "train", "bilstm", "-o", "training.learning_rate=1e30", *train[2:], own)
    assert code == 2
    assert "learning_rate" in err
    assert lines(tmp_path / "one")[1:] == [["bilstm", "False [] bilstm"]]


def test_in_python(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mer_zoo.train("majority", DATA, track=own)
    assert lines(tmp_path / "runs") == [["majority", "True [] "]]  # it is not kept, so there are no files
    mer_zoo.compare(["majority"], DATA, seeds=1, output="more", workers=1, track=[own])
    assert lines(tmp_path / "more") == [["majority", "True ['result.json'] "]]
    with pytest.warns(UserWarning, match="is not logged: ConnectionError"):
        found = mer_zoo.compare(
            ["majority"], DATA, seeds=2, output="more", workers=1, track={"name": own, "fails": ["majority"]}
        )
    assert len(found) == 2
    pytest.importorskip("optuna", reason="needs the extra tune")
    how = {"keys": ["training.*"], "change": {"training.epochs": 1}, "workers": 1, "track": own}
    mer_zoo.tune("mlp", DATA, trials=2, output="searched", **how)
    assert lines(tmp_path / "searched") == 2 * [["mlp", "True [] "]]  # a trial is logged once, and leaves no file


MISTAKES = {
    "mlfow": "--track: no tracker named 'mlfow'. Did you mean 'mlflow'?",
    "{name: mlflow, experimnt: x}": "--track: tracker/mlflow has no setting 'experimnt'. Did you mean 'experiment'?",
    "{name: mlflow, experiment: 3}": "--track: setting 'experiment' of tracker/mlflow: must be text (given: 3).",
    "{experiment: x}": "--track: {'experiment': 'x'} has no name. Add one, such as `name: mlflow`.",
    "{name: [}": "--track {name: [}: not valid YAML.",
    "./gone.py:Own": "--track: ./gone.py: no such file.",
    "fractions:Fraction": "tracker/fractions:Fraction",
    "builtins:object": "tracker/builtins:object has no method `log(run)`. See `mer-zoo new tracker NAME`.",
    "{name: wandb, address: 'https://api.example'}": "Set the variable WANDB_API_KEY.",
}


@pytest.mark.parametrize("given", MISTAKES)
def test_mistakes_are_told_before_training(capsys, tmp_path, monkeypatch, given):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if "wandb" in given:
        pytest.importorskip("wandb", reason="needs wandb, of the extra track")
    code, _, err = run(capsys, "train", "majority", "--output", tmp_path, "--track", given)
    assert (code, err.count("\n")) == (2, 1)
    assert MISTAKES[given] in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_missing_package_is_told_before_training(capsys, tmp_path, monkeypatch, name, package):
    for module in [one for one in sys.modules if one.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = run(capsys, "train", "majority", "--output", tmp_path, "--track", name)
    assert code == 2
    assert f"tracker/{name}: {package} is not installed. Run `pip install 'mer-zoo[track]'`." in err
    assert not list(tmp_path.glob("*.result.json"))


def test_a_dry_run_checks_names_and_touches_nothing(capsys, tmp_path):
    command = ["compare", "default", "--dry-run", "--output", tmp_path / "runs", "--track"]
    assert run(capsys, *command, "mlfow")[0] == 2
    assert main([str(word) for word in (*command, "tensorboard")]) == 0
    assert not (tmp_path / "runs").exists()


def test_a_run_of_no_more_than_its_id_is_replaced_under_another_name(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra track")
    from mer_zoo.checking.trackers import FINISHED
    from mer_zoo.parts.tracker.tensorboard import Tensorboard

    for name in ("one", "another"):
        Tensorboard(str(tmp_path)).log(replace(FINISHED, name=name))
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == [f"another-{FINISHED.id}"]
