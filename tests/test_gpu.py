"""What a GPU computes is what the CPU computes; see also the tests that name `computed_on`, which run on both."""

import pytest
import torch
from on_a_device import task
from test_cli import run
from test_parity import FOLDER, MODELS

import mer_zoo
from mer_zoo import registry
from mer_zoo.checking import check_names, inspect_part
from mer_zoo.comparison.executing import execute
from mer_zoo.model import parity, recipe
from mer_zoo.training.engines import OneSeed, seeds_that_fit
from mer_zoo.training.experiment import prepare
from mer_zoo.training.loop import train_stacked
from mer_zoo.training.options import ComputeOptions

STAGED = [name for name in recipe.names() if recipe.read(name).recipe.learner is None]
CARDS = [card.id for card in registry.cards() if card.kind in registry.KINDS and "/" not in card.name]


@pytest.mark.parametrize("card_id", [card for card in CARDS if "cuda" in check_names(*registry.split(card))])
def test_every_part(gpu, card_id):
    (finding,) = inspect_part(*registry.split(card_id), only="cuda")
    assert finding.fine, finding


@pytest.mark.parametrize("name", MODELS)
def test_parity(gpu, name):
    assert [d for d in parity.check(FOLDER / f"{name}.npz", device=gpu) if not d.passes] == []


@pytest.mark.parametrize("name", STAGED)
def test_every_recipe_judges_alike(gpu, name):
    logits = {}
    for device in ("cpu", gpu):
        cell = task(name, device=device)
        engine = OneSeed(cell, [0], [[[[0]]]], ComputeOptions(capture=False))
        batch = cell.train.batch(range(3))
        with torch.no_grad():
            logits[device] = engine.judge(batch)[0].cpu()
    torch.testing.assert_close(logits[gpu], logits["cpu"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kernel", ["segment", "dense", "band", "planes"])
@pytest.mark.parametrize("name", ["mmgcn", "speaker_nodes", "cogmen"])
def test_every_kernel_has_the_same_gradient(gpu, name, kernel):
    gradients = {}
    for device in ("cpu", gpu):
        cell = task(name, device=device, kernels=registry.load(registry.find("kernel", kernel)))
        engine = OneSeed(cell, [0], [[[[0]]]], ComputeOptions(capture=False))
        engine.step.eval()  # without dropout
        total, output, labels = engine.step(cell.train.batch(range(3)))
        engine.step.backward(total, output, labels)
        gradients[device] = {n: p.grad.cpu() for n, p in engine.step.model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(gradients[gpu], gradients["cpu"], atol=1e-3, rtol=1e-3)


def test_a_suite_trains_there_and_its_models_are_used_on_the_cpu(gpu, small, small_folder, tmp_path, capsys):
    of = ("--models", "AMB-DSGDN; BiLSTM", "--data", small_folder, "--seeds", "2", "--change", "training.epochs=2")
    code, _, told = run(capsys, "compare", *of, "--device", gpu, "--keep-weights", "--output", tmp_path)
    assert code == 0, told
    weights = sorted(tmp_path.glob("*.safetensors"))
    assert len(weights) == 4
    judged = [mer_zoo.load_model(weights[0]).predict(small.conversations, device) for device in ("cpu", gpu)]
    for name, probabilities in judged[0].items():
        assert judged[1][name] == pytest.approx(probabilities, abs=1e-3)


def test_as_many_seeds_fit_as_are_said_to(gpu, small):
    """At 32 seeds, or as many as are said to fit: the measure is of one seed alone."""
    cell = prepare("amb_dsgdn", small, device=gpu, changes={"training.epochs": 1}).task()
    count = min(seeds_that_fit(cell), 32 if gpu != "cpu" else 3)
    assert len(train_stacked(cell, range(count))) == count


def test_a_stack_that_fills_the_card_is_halved(gpu, small, tmp_path, monkeypatch):
    if gpu == "cpu":
        pytest.skip("a processor has no limit to set")
    monkeypatch.setattr("mer_zoo.training.experiment.seeds_that_fit", lambda task: 1 << 30)
    change = {"training.epochs": 1}
    runs = [prepare("amb_dsgdn", small, seed=seed, device=gpu, changes=change) for seed in range(32)]
    whole = torch.cuda.get_device_properties(gpu).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated(gpu) + 300e6) / whole)
    try:
        with pytest.warns(UserWarning, match="do not fit in memory together"):
            results, failures = execute(runs, tmp_path, workers=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert failures == []
    assert len(results) == 32
