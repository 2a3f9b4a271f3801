"""A suite on a Ray cluster of two machines, simulated here: the numbers of this machine, also when one is lost."""

import pytest
from test_cli import run

from mer_zoo.comparison.executing import Listener, execute
from mer_zoo.comparison.ray_cluster import RayCluster
from mer_zoo.comparison.suite import checked, experiments
from mer_zoo.errors import MerZooError
from mer_zoo.model.saving import load

ray = pytest.importorskip("ray", reason="needs the extra ray")


@pytest.fixture(scope="module")
def machines():
    """A cluster of two machines with one processor each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def suite():
    data = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
    models = {"BiLSTM": "bilstm", "DialogueGCN": "dialoguegcn", "Majority": "majority"}
    change = {"training.epochs": 2}
    return experiments(checked({"title": "a few", "data": [data], "models": models, "seeds": 2, "change": change}))


def numbers(results):
    return [(r.run, r.recipe_name, r.metrics, r.predictions) for r in results]


def test_a_cluster_gives_the_numbers_of_this_machine_though_a_machine_is_lost(machines, suite, tmp_path):
    cluster, second = machines
    here, failures = execute(suite, tmp_path / "here", workers=1, keep_weights=True)
    assert not failures
    lost = []

    def lose_one(outcome):
        if not lost:
            cluster.remove_node(second, allow_graceful=False)
            lost.append(second)

    there, failures = execute(
        suite,
        tmp_path / "there",
        keep_weights=True,
        listener=Listener(run=lose_one),
        executor=RayCluster(cluster.address, cpus=0.5),
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


def test_a_broken_run_is_named_and_the_others_are_kept(machines, tmp_path):
    data = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
    models = {"fine": "majority", "broken": {"recipe": "bilstm", "change": {"training.learning_rate": 1e30}}}
    plan = experiments(checked({"title": "one breaks", "data": [data], "models": models, "seeds": 1}))
    results, (failure,) = execute(plan, tmp_path, executor=RayCluster(machines[0].address))
    assert [result.recipe_name for result in results] == ["fine"]
    assert (failure.experiment.name, failure.experiment.data) == ("broken", data)
    assert "learning_rate" in failure.message


def test_more_than_any_machine_has_is_refused_instead_of_waited_for(machines, suite, tmp_path):
    with pytest.raises(MerZooError, match=r"--cpus 64: the largest machine of the cluster has 1\. Ask for less"):
        execute(suite, tmp_path, executor=RayCluster(machines[0].address, cpus=64))


MISTAKES = {
    "an address without ray": (["--address", "auto"], "--address: only --executor ray uses it"),
    "gpus without ray": (["--gpus", "1"], "--gpus: only --executor ray uses it"),
    "workers with ray": (["--executor", "ray", "--workers", "2"], "--workers: with --executor ray"),
    "a GPU by number": (["--executor", "ray", "--device", "cuda:1"], "Ray chooses the GPU"),
    "less than nothing": (["--executor", "ray", "--cpus", "-1"], "--cpus -1: want 0 or more"),
    "no number": (["--executor", "ray", "--gpus", "nan"], "--gpus nan: want 0 or more"),
    "one and a half": (["--executor", "ray", "--cpus", "1.5"], "Ray takes whole numbers above 1. Use 1."),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_message(capsys, tmp_path, name):
    arguments, message = MISTAKES[name]
    code, _, err = run(capsys, "compare", "context", "--output", tmp_path, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
