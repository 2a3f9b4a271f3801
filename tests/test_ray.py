"""A Ray cluster of two machines, simulated here: the numbers of this machine, also when one is lost."""

import os
import random
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import killing
import pytest
from machines import two
from test_cli import run
from test_killing import noting

from mer_zoo.comparison import executing
from mer_zoo.comparison.claims import claim
from mer_zoo.comparison.executing import Listener, execute
from mer_zoo.comparison.ray_cluster import RayCluster
from mer_zoo.comparison.suite import checked, experiments
from mer_zoo.errors import MerZooError
from mer_zoo.model.saving import load
from mer_zoo.results.result import read_result
from mer_zoo.training import checkpoint

ray = pytest.importorskip("ray", reason="needs the extra ray")


@pytest.fixture(scope="module")
def machines():
    """A cluster of two machines with one processor each."""
    with two() as made:
        yield made
        ray.shutdown()


@pytest.fixture(scope="module")
def suite():
    data = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
    models = {"BiLSTM": "bilstm", "DialogueGCN": "dialoguegcn", "Majority": "majority"}
    change = {"training.epochs": 2}
    return experiments(checked({"title": "a few", "data": [data], "models": models, "seeds": 2, "change": change}))


def numbers(results):
    return [(r.run, r.recipe_name, r.metrics, r.predictions) for r in results]


def test_a_cluster_gives_the_numbers_of_this_machine_though_a_machine_is_lost(machines, suite, tmp_path):
    here, failures = execute(suite, tmp_path / "here", workers=1, keep_weights=True)
    assert not failures
    lost = []

    def lose_one(outcome):
        if not lost:
            machines.lose_one()
            lost.append(outcome)

    there, failures = execute(
        suite,
        tmp_path / "there",
        keep_weights=True,
        listener=Listener(run=lose_one),
        executor=RayCluster(machines.address, cpus=0.5),
    )
    assert lost
    assert not failures
    assert numbers(there) == numbers(here)
    weights = {path.name for path in (tmp_path / "here").glob("*.safetensors")}
    assert weights == {path.name for path in (tmp_path / "there").glob("*.safetensors")} != set()
    for name in weights:
        one, other = (load(tmp_path / folder / name).model.state_dict() for folder in ("here", "there"))
        assert all(one[key].equal(other[key]) for key in one)
    # what is there is not run again, wherever it came from
    again, _ = execute(suite, tmp_path / "there", keep_weights=True, listener=Listener(run=pytest.fail), workers=1)
    assert numbers(again) == numbers(here)


def test_two_that_ask_share_the_work_and_write_no_file_twice(machines, suite, tmp_path, monkeypatch):
    written, found, write = [], [], executing.write_atomically

    def watched(path, *content):
        written.append(path.name)
        write(path, *content)

    monkeypatch.setattr(executing, "write_atomically", watched)
    cluster = RayCluster(machines.address, cpus=0.5)

    def ask():
        found.append(execute(suite, tmp_path, keep_weights=True, executor=cluster))

    both = [Thread(target=ask) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert [len(results) for results, _ in found] == [6, 6]
    assert numbers(found[0][0]) == numbers(found[1][0])
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())  # each once, and no claim among them
    assert len(written) == 6 + 4  # results, and weights of what is not a learner


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="signals and processes of Linux")
def test_a_run_whose_worker_is_lost_goes_on_from_its_checkpoint_in_a_shared_folder(machines, tmp_path, monkeypatch):
    notes, stay, part = tmp_path / "notes", tmp_path / "stay", noting(tmp_path, monkeypatch)
    mine = {"recipe": "bilstm", "change": {"balancing": f"{part}:Noting", "training.epochs": 5}}
    data = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
    one = experiments(checked({"title": "k", "data": [data], "models": {"B": mine}, "seeds": 1}))
    found = []
    asking = Thread(target=lambda: found.extend(execute(one, tmp_path / "runs", executor=RayCluster(machines.address))))
    stay.touch()
    asking.start()
    while not notes.exists() or notes.read_text().split()[-1:] != ["3"]:
        assert asking.is_alive()
        time.sleep(0.05)
    assert len(list((tmp_path / "runs").glob("*.checkpoint"))) == 1
    for process in machines.workers():
        os.kill(process, signal.SIGKILL)
    stay.unlink()
    asking.join()
    results, failures = found
    assert failures == []
    assert notes.read_text().split() == ["1", "2", "3", "3", "4"]  # from the checkpoint, not from the beginning
    assert [path.name[0] for path in (tmp_path / "runs").iterdir()] == ["B"]  # the result, and no checkpoint
    assert numbers(results) == numbers(execute(one, tmp_path / "here", workers=1)[0])


def test_a_machine_that_does_not_see_the_folder_keeps_its_checkpoints_to_itself(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    written = []
    monkeypatch.setattr(checkpoint, "write", lambda path, *_: written.append(path))
    attempt, _ = executing._packed(False, tmp_path, [suite[0]])
    assert attempt
    assert tmp_path not in {path.parent for path in written}
    with claim(tmp_path, suite[0].identity.run):
        executing._packed(False, tmp_path, [suite[0]])
    assert written[-1].parent == tmp_path


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://localhost:{port}", "no-such-machine.invalid:6379"])
def test_an_address_where_nobody_answers_is_refused_at_once(suite, tmp_path, address):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(MerZooError, match=r"^--address .+: no Ray cluster \(.+\) Start one with `ray start`\.$"):
        execute(suite, tmp_path, executor=RayCluster(address.format(port=port)))
    assert time.monotonic() - began < 60  # `ray.init` alone tries for minutes
    assert list(tmp_path.iterdir()) == []


def test_a_search_on_a_cluster_scores_its_trials_as_this_machine_does(machines, tmp_path):
    pytest.importorskip("optuna", reason="needs the extra tune")
    from mer_zoo.tuning import trials
    from mer_zoo.tuning.search import Search

    data = {"name": "synthetic", "dialogues": [6, 3, 4], "utterances": [3, 8]}
    how = {"changes": ["training.epochs=2"], "keys": ["training.*"], "trials": 4}
    search = Search.of("bilstm", data, folder=tmp_path, name="b", **how)
    cluster, ended = RayCluster(machines.address), []

    def lose_one(trial):
        ended.append(trial)
        if len(ended) == 2:
            machines.lose_one()

    trials.run(search, executor=cluster, watch=lose_one)
    made = search.trained()
    assert len(made) == len(ended) == 4
    for trial in made:
        blind = search.blind(trial.user_attrs["changes"])
        alone = trials.train([replace(blind, seed=seed) for seed in search.seeds])
        assert (trial.value, trial.intermediate_values) == (alone.scores[0], alone.curve)
    late = replace(search.blind({"training.epochs": 9}), bar={6: 1.1})
    ((_, ended),) = cluster(trials.train, [[late]])
    assert (ended.scores, list(ended.curve)) == ((), list(range(7)))


def test_a_broken_run_is_named_and_the_others_are_kept(machines, tmp_path):
    data = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
    models = {"fine": "majority", "broken": {"recipe": "bilstm", "change": {"training.learning_rate": 1e30}}}
    plan = experiments(checked({"title": "one breaks", "data": [data], "models": models, "seeds": 1}))
    results, (failure,) = execute(plan, tmp_path, executor=RayCluster(machines.address))
    assert [result.recipe_name for result in results] == ["fine"]
    assert (failure.experiment.name, failure.experiment.data) == ("broken", data)
    assert "learning_rate" in failure.message


def test_more_than_any_machine_has_is_refused_instead_of_waited_for(machines, suite, tmp_path):
    with pytest.raises(MerZooError, match=r"--cpus 64: the largest machine of the cluster has 1\. Ask for less"):
        execute(suite, tmp_path, executor=RayCluster(machines.address, cpus=64))


@pytest.mark.attack("H3")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="signals and processes of Linux")
def test_a_suite_that_is_killed_on_a_cluster_ends_in_the_files_of_an_undisturbed_one_here(machines, tmp_path):
    random.seed(1)
    killing.run(1, tmp_path, epochs=1, machines=machines)


def test_a_lost_head_is_one_message_and_a_new_cluster_goes_on(machines, suite, tmp_path):
    heard = []

    def lose(outcome):
        heard.append(outcome.run)
        if len(heard) == 1:
            machines.lose_head()

    told = r"^Ray: the cluster is lost \(.+\)\. Finished results are kept; run it again to go on"
    with pytest.raises(MerZooError, match=told):
        execute(suite, tmp_path, listener=Listener(run=lose), executor=RayCluster(machines.address))
    machines.begin_anew()
    assert heard[0] in {read_result(path).run for path in tmp_path.glob("*.result.json")}
    assert list(tmp_path.glob(".*.claim")) == []
    results, failures = execute(suite, tmp_path, listener=Listener(run=lose), executor=RayCluster(machines.address))
    assert (len(results), failures) == (6, [])
    assert len(heard) == len(set(heard)) == 6  # none again


MISTAKES = {
    "an address without ray": (["--address", "auto"], "--address: only --executor ray uses it"),
    "gpus without ray": (["--gpus", "1"], "--gpus: only --executor ray uses it"),
    "workers with ray": (["--executor", "ray", "--workers", "2"], "--workers: with --executor ray"),
    "a GPU by number": (["--executor", "ray", "--device", "cuda:1"], "Ray chooses the GPU"),
    "less than nothing": (["--executor", "ray", "--cpus", "-1"], "--cpus -1: want 0 or more"),
    "no number": (["--executor", "ray", "--gpus", "nan"], "--gpus nan: want 0 or more"),
    "one and a half": (["--executor", "ray", "--cpus", "1.5"], "Ray takes whole numbers above 1. Use 1."),
}


@pytest.mark.parametrize("command", [["compare", "context"], ["tune", "bilstm"]], ids=["compare", "tune"])
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_message(capsys, tmp_path, name, command):
    arguments, message = MISTAKES[name]
    code, _, err = run(capsys, *command, "--output", tmp_path, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
