"""Fast paths change time, not results: stacked seeds, captured steps, precision, deterministic mode, long dialogues."""

import copy
import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mer_zoo.batch import launch_cost
from mer_zoo.batch.index import Shape
from mer_zoo.checking.small_data import conversations
from mer_zoo.comparison import suite
from mer_zoo.comparison.executing import execute
from mer_zoo.corpus import Corpus
from mer_zoo.data.splits import split_dataset
from mer_zoo.errors import MerZooError
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment
from mer_zoo.model import filling, recipe, vmapped
from mer_zoo.model.saving import load as load_model
from mer_zoo.model.saving import save
from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.parts.encoder.bigru import BiGRU
from mer_zoo.parts.encoder.bilstm import BiLSTM
from mer_zoo.parts.layer.differential_gat import DifferentialGAT
from mer_zoo.parts.ops.dropout import dropout
from mer_zoo.training import memory
from mer_zoo.training.capturing import Captured, union
from mer_zoo.training.engines import OneSeed, StackedSeeds, batches_of, why_not_stacked
from mer_zoo.training.experiment import prepare
from mer_zoo.training.loop import train, train_stacked
from mer_zoo.training.options import ComputeOptions
from mer_zoo.training.task import Task

SGD = "training.optimizer=sgd"  # a bias ahead of batch norm has a gradient of rounding alone, which Adam would enlarge
STILL = {
    "amb_dsgdn": (
        "model.context.encoder.dropout=0", "model.classify.head.dropout=0", "balancing=none",
        "model.cross_speaker.layer.dropout=0", "model.same_speaker.layer.dropout=0",
    ),
    "mmgcn": (
        "model.context.encoder={name: linear, out_width: 64}", "model.thin.encoder.dropout=0",
        "model.spectral.layer.dropout=0", "model.spectral.layer.depth=4", "model.classify.head.dropout=0",
    ),
    "cogmen": ("model.context.encoder.dropout=0", "model.classify.head.dropout=0", SGD),
    "corect": (
        "model.cross.fusion.dropout=0", "model.memory.fusion.dropout=0", "model.classify.head.dropout=0", SGD,
    ),
}  # fmt: skip
"""Recipes without dropout, and without parts that cannot be stacked."""


def task(dataset, name="amb_dsgdn", *changes, kernels=None, epochs=2, device="cpu"):
    filled = filling.fill(recipe.read(name, (f"training.epochs={epochs}", *changes)), dataset.widths)
    return Task(name, filled, dataset, split_dataset(dataset), kernels=kernels, device=device)


def epoch(engine_class, cell, seeds, options=None):
    """Train one epoch; returns losses and each seed's weights."""
    plan = [batches_of(cell.train, seed, 1, cell.plan.training.dialogues_per_batch) for seed in seeds]
    torch.manual_seed(seeds[0])
    engine = engine_class(cell, seeds, plan, options or ComputeOptions())
    return engine.epoch(0), [engine.weights(i) for i in range(len(seeds))]


def close(ours, theirs, tolerance=1e-4):
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kernel", [None, Segment, Dense, Band, Planes], ids=lambda k: k.__name__ if k else "chosen")
@pytest.mark.parametrize("name", STILL)
def test_a_stacked_seed_is_what_it_is_alone(small, name, kernel, computed_on):
    cell = task(small, name, *STILL[name], kernels=kernel, device=computed_on)
    losses, stacked = epoch(StackedSeeds, cell, [3, 4, 5])
    for number, seed in enumerate([3, 4, 5]):
        loss, (alone,) = epoch(OneSeed, cell, [seed])
        assert float(losses[number]) == pytest.approx(float(loss), abs=1e-4)
        close(stacked[number], alone)


def test_a_clipped_stack_clips_every_seed_by_itself(small, computed_on):
    cell = task(
        small, "amb_dsgdn", *STILL["amb_dsgdn"], "training.clip=0.05", "training.optimizer=sgd", device=computed_on
    )
    _, stacked = epoch(StackedSeeds, cell, [1, 2])
    for number, seed in enumerate([1, 2]):
        close(stacked[number], epoch(OneSeed, cell, [seed])[1][0], 1e-5)


def test_stacked_seeds_drop_out_differently(small):
    cell = task(small)
    losses, _ = epoch(StackedSeeds, cell, [7, 7])  # same weights, same order
    assert losses[0] != losses[1]


@pytest.mark.parametrize("strategy", ["none", "modality_dropout", "adaptive_dropout", "opm"])
def test_balancing_of_single_tensors_is_stacked(small, strategy, computed_on):
    warm = ", warm_up: 1" if strategy in ("adaptive_dropout", "opm") else ""
    cell = task(small, "amb_dsgdn", f"balancing={{name: {strategy}{warm}}}", epochs=3, device=computed_on)
    outcomes = train_stacked(cell, [0, 1])
    assert [o.result.seed for o in outcomes] == [0, 1]
    assert all(h["stacked_seeds"] == 2 for o in outcomes for h in o.result.history)
    if warm:
        assert any(rate > 0 for o in outcomes for rate in o.result.history[-1]["rates"].values())
        assert outcomes[0].result.history[-1]["rates"] != outcomes[1].result.history[-1]["rates"]


def test_a_batch_of_stacked_seeds_is_uploaded_as_one(small, monkeypatch):
    cell, uploads = task(small), []
    chosen = [np.arange(3), np.arange(1, 4)]
    shape = union([cell.train.shape(one) for one in chosen])
    once = cell.train.index(chosen[1], shape=shape).tensors()
    upload = cell.train._upload
    monkeypatch.setattr(cell.train, "_upload", lambda x: uploads.append(x) or upload(x))
    stacked = cell.train.stacked_index(chosen, shape)
    assert len(uploads) == len(pytree.tree_leaves(once))
    torch.testing.assert_close(pytree.tree_map(lambda x: x[1], stacked), once)


def test_what_cannot_be_stacked_says_why(small):
    assert why_not_stacked(task(small)) is None
    wrapped = task(small, "amb_dsgdn", "model.same_speaker.layer={name: dgl, conv: GATv2Conv, num_heads: 2}")
    assert why_not_stacked(wrapped) == "layer/dgl cannot be stacked"
    assert "balancing/ogm_ge" in why_not_stacked(task(small, "amb_dsgdn", "balancing=ogm_ge"))
    with pytest.raises(MerZooError, match=r"layer/dgl cannot be stacked\. Train its seeds one by one"):
        train_stacked(wrapped, [0, 1])


def test_a_seed_that_stops_early_keeps_its_best_epoch(small):
    cell = task(small, "amb_dsgdn", "training.patience=1", epochs=12)
    outcomes = train_stacked(cell, [0, 1, 2])
    for outcome in outcomes:
        result = outcome.result
        assert result.epochs_run == min(result.chosen_epoch + 2, 12)
        scores = [h["validation_weighted_f1"] for h in result.history]
        assert result.metrics.validation.weighted_f1 == pytest.approx(max(scores))
    assert min(o.result.epochs_run for o in outcomes) < 12


def test_the_model_of_a_stacked_seed_is_the_one_that_was_judged(small, computed_on):
    cell = task(small, device=computed_on)
    for outcome in train_stacked(cell, [0, 1]):
        batch = cell.test.batch(range(len(cell.test)))
        with torch.no_grad():
            predicted = outcome.model.eval()(batch).logits.argmax(-1).tolist()
        assert predicted == [p for dialogue in outcome.result.predictions.values() for p in dialogue.predicted]


@pytest.mark.parametrize("name", STILL)
@pytest.mark.parametrize("engine", [OneSeed, StackedSeeds])
def test_captured_shapes_change_nothing(small, name, engine, computed_on):
    """On CPU nothing is recorded, but batches are padded to the same few shapes and go through the same buffers."""
    cell = task(small, name, *STILL[name], device=computed_on)
    seeds = [1, 2] if engine is StackedSeeds else [1]
    plain, captured = (epoch(engine, cell, seeds, ComputeOptions(capture=c)) for c in (False, True))
    torch.testing.assert_close(captured[0], plain[0], atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(captured[1], plain[1], strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("name", STILL)
@pytest.mark.parametrize("engine", [OneSeed, StackedSeeds])
def test_parts_that_run_as_one_change_nothing(small, name, engine, computed_on):
    """As on a GPU: modalities of equal computation are mapped, padded layouts are kept, steps are captured."""
    cell = task(small, name, *STILL[name], device=computed_on)
    seeds = [1, 2] if engine is StackedSeeds else [1]
    with launch_cost.assumed(False):
        plain = epoch(engine, cell, seeds)
    with launch_cost.assumed(True):
        together = epoch(engine, cell, seeds, ComputeOptions(capture=True))
    torch.testing.assert_close(together[0], plain[0], atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(together[1], plain[1], strict=True):
        close(ours, theirs)


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += "mm" in function.__name__
        return function(*arguments, **(named or {}))


def test_parts_run_as_one_where_they_are_alike():
    twins, other = [nn.Linear(3, 2) for _ in range(2)], nn.Linear(4, 2)
    x = [torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 3)]
    calls = [vmapped.Call(part, y, ()) for part, y in zip((twins[0], other, twins[1]), x, strict=True)]
    with launch_cost.assumed(True):
        for stackable, products in ((True, 2), (False, 3)):
            with Products() as counted:
                found = vmapped.run(calls, stackable)
            assert counted.count == products
            for call, y in zip(calls, found, strict=True):
                torch.testing.assert_close(y, call.part(call.x))


class Copies(TorchDispatchMode):
    """Counts what puts tensors together."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += function in (torch.ops.aten.stack.default, torch.ops.aten.cat.default)
        return function(*arguments, **(named or {}))


def apart(parts):
    """Give parts memory of their own again."""
    for part in parts:
        for x in part.parameters():
            x.data = x.data.clone()


def moved(parts):
    apart(parts[1:])


def swapped(parts):
    parts[0].weight.data, parts[1].weight.data = parts[1].weight.data, parts[0].weight.data


def copied(parts):
    parts[:] = copy.deepcopy(parts)


def loaded(parts):
    parts[1].load_state_dict(parts[0].state_dict())


def stepped(parts):
    for x in (x for part in parts for x in part.parameters()):
        x.grad = torch.ones_like(x)
    torch.optim.Adam([x for part in parts for x in part.parameters()], lr=0.1, fused=True).step()
    for part in parts:
        part.zero_grad()


@pytest.mark.parametrize("happens", [moved, swapped, copied, loaded, stepped])
def test_weights_that_lie_side_by_side_are_those_of_their_parts(happens):
    torch.manual_seed(0)
    parts = [nn.Linear(3, 2) for _ in range(3)]
    x = [torch.randn(5, 3, requires_grad=True) for _ in parts]

    def ran():
        with launch_cost.assumed(True), Copies() as counted:
            found = vmapped.run([vmapped.Call(part, y, ()) for part, y in zip(parts, x, strict=True)], True)
        sum(y.square().sum() for y in found).backward()
        gradients = [p.grad for part in parts for p in part.parameters()]
        for part in parts:
            part.zero_grad()
        return found, gradients, counted.count

    apart(parts)
    stacked = ran()
    vmapped.lay_side_by_side(parts)
    joined = ran()
    assert stacked[2] - joined[2] == 2  # weight and bias
    torch.testing.assert_close(joined[:2], stacked[:2])
    happens(parts)
    after = ran()
    apart(parts)
    torch.testing.assert_close(after[:2], ran()[:2])


def test_a_model_whose_weights_lie_side_by_side_is_trained_saved_and_loaded(small, tmp_path):
    cell = task(small, "amb_dsgdn", *STILL["amb_dsgdn"])
    plain = train(cell, 1)
    with launch_cost.assumed(True):
        ours = train(cell, 1)
    close(ours.model.state_dict(), plain.model.state_dict(), 1e-3)
    save(ours.saved, tmp_path / "m.safetensors")
    close(load_model(tmp_path / "m.safetensors").model.state_dict(), ours.model.state_dict(), 0)


@pytest.mark.parametrize("kernel", [Segment, Dense, Band], ids=lambda k: k.__name__)
def test_few_shapes_hold_all_batches(kernel):
    from mer_zoo.training.capturing import Captured, common_shapes

    builder = SelfCrossSpeaker(("text",), window=2)
    corpus = Corpus(conversations([7, 3, 11, 2, 5]), builder, [(("text",), "*")], kernels=kernel)
    plan = [batches_of(corpus, 0, 4, 2), batches_of(corpus, 1, 4, 2)]
    shapes = common_shapes(corpus, plan)
    captured = Captured(lambda index: None, shapes, list, "cpu")
    assert len(shapes) == 2
    for epochs in plan:
        for batches in epochs:
            for chosen in batches:
                shape = captured.fitting(corpus.shape(chosen))
                batch = corpus.batch(corpus.index(chosen, shape=shape))
                assert len(batch) == shape.utterances
                assert batch.layout.rows.shape == (shape.dialogues, shape.longest)
    assert captured.fitting(Shape(9, 99, 99, shapes[0].edges)) is None


class Recording(Captured):
    """Records without a GPU: warms up as on one, then runs the step itself."""

    def _record(self, index):
        with self._as_it_was():
            for _ in range(3):
                self.compute(index)
        return super()._record(index)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam", "Rprop", "ASGD", "Adadelta"])
def test_recording_leaves_training_as_it_was(name):
    """Warm-up steps are undone: weights, random numbers, and moments, whatever they begin with."""

    def trained(kind):
        torch.manual_seed(0)
        weight = torch.ones(3, requires_grad=True)
        optimizer = getattr(torch.optim, name)([weight], lr=0.1)

        def step(index):
            optimizer.zero_grad(set_to_none=True)
            loss = (weight.square() * torch.rand(3) * index["scale"]).sum()
            loss.backward()
            optimizer.step()
            return loss.detach(), torch.zeros(())

        def state():
            return [
                weight,
                *(x for kept in optimizer.state.values() for x in kept.values() if isinstance(x, torch.Tensor)),
            ]

        captured = kind(step, [Shape(1), Shape(2)], state, "cpu")
        losses = [captured({"scale": torch.tensor(1.0 + i)}, Shape(1 + i % 2), i > 3)[0] for i in range(12)]
        return torch.stack(losses), weight.detach()

    class Plain(Captured):
        def __call__(self, index, shape, phase):
            return self.compute(index)

    for ours, theirs in zip(trained(Recording), trained(Plain), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("launches", ["cheap", "costly"])
@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("name", ["amb_dsgdn", "mmgcn", "dialoguegcn", "bilstm"])
def test_deterministic_runs_repeat_bitwise(small, name, capture, launches, computed_on):
    options = ComputeOptions(deterministic=True, capture=capture)
    with launch_cost.assumed(launches == "costly"):
        first, again = (train(task(small, name, device=computed_on), 5, options=options) for _ in range(2))
    assert first.result.history == again.result.history
    for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("name", ["amb_dsgdn", "mmgcn", "dialoguegcn", "bilstm"])
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_lower_precision_trains(small, name, precision, computed_on):
    exact, rounded = (
        train(task(small, name, device=computed_on), 0, options=ComputeOptions(precision=p)).result
        for p in ("float32", precision)
    )
    losses = [[h["train_loss"] for h in r.history] for r in (exact, rounded)]
    np.testing.assert_allclose(*losses, rtol=0.1)
    assert (exact.precision, rounded.precision) == ("float32", precision)
    assert exact.run != rounded.run
    assert torch.get_float32_matmul_precision() == "highest"


def test_stacked_seeds_in_bfloat16(small, computed_on):
    outcomes = train_stacked(task(small, device=computed_on), [0, 1], options=ComputeOptions(precision="bf16"))
    assert all(np.isfinite(outcome.result.history[-1]["train_loss"]) for outcome in outcomes)


def test_every_strategy_that_changes_the_loop_is_left_alone():
    class Own(Balancing):
        def after_backward(self, parameters):
            """Do something to gradients."""

    assert Balancing(("text", "audio"), 6).stackable
    assert not Own(("text", "audio"), 6).stackable


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_dropout_keeps_the_mean(probability):
    torch.manual_seed(0)
    x = torch.ones(300, 333, requires_grad=True)
    y = dropout(x, probability)
    zero = float((y == 0).float().mean())
    assert zero == pytest.approx(probability, abs=0.01)
    if probability < 1:
        assert float(y.mean().detach()) == pytest.approx(1, abs=0.02)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert dropout(x, probability, training=False) is x


def test_dropout_in_bits_is_even_over_places():
    torch.manual_seed(0)
    kept = (dropout(torch.ones(4000, 8), 0.3) != 0).float().mean(0)
    assert float((kept - 0.7).abs().max()) < 0.03


@pytest.mark.parametrize("kernel", [Band, Segment], ids=lambda k: k.__name__)
def test_memory_of_a_windowed_layer_is_linear_in_length(kernel):
    """Count what autograd keeps for one dialogue of n and of 8 n utterances."""

    def kept(length):
        corpus = Corpus(
            conversations([length]), SelfCrossSpeaker(("text",), window=5), [(("text",), "*")], kernels=kernel
        )
        edges = next(iter(corpus.batch([0]).views.values()))
        layer = DifferentialGAT(8, edges.names)
        total = 0

        def count(x):
            nonlocal total
            total += x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            layer(torch.randn(length, 8), edges, None)
        return total / length

    assert kept(4000) == pytest.approx(kept(500), rel=0.25)


@pytest.mark.parametrize("encoder", [BiLSTM, BiGRU])
def test_wide_features_are_mapped_before_they_are_padded(encoder):
    """Equal to the cells themselves, run on the padded layout, gradients included."""
    torch.manual_seed(0)
    dialogues = Corpus(conversations([5, 2, 7])).batch([0, 1, 2]).layout
    part = encoder(50, hidden=3, layers=1).eval()
    x = torch.randn(14, 50, requires_grad=True)
    ours = part(x, dialogues)
    rows, start = [], 0
    for length in (5, 2, 7):
        dialogue = x[start : start + length].unsqueeze(0)
        rows.append(torch.cat([part.forwards[0](dialogue)[0], part.backwards[0](dialogue.flip(1))[0].flip(1)], -1)[0])
        start += length
    torch.testing.assert_close(ours, torch.cat(rows))
    slopes = [torch.autograd.grad(y.sin().sum(), [x, *part.parameters()]) for y in (ours, torch.cat(rows))]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b)


def test_dgl_cannot_be_stacked_but_trains(small):
    cell = task(small, kernels=DGL)
    assert "DGL" in why_not_stacked(cell)
    assert np.isfinite(train(cell, 0).result.history[-1]["train_loss"])


@pytest.mark.parametrize(("stack", "stacked"), [(None, False), (True, True), (False, False)])
def test_compare_stacks_seeds_when_told_to(small_folder, tmp_path, stack, stacked):
    mine = {"recipe": "amb_dsgdn", "change": {"balancing": "ogm_ge"}}
    models = {"AMB-DSGDN": "amb_dsgdn", "OGM-GE": mine}
    change = {"training.epochs": 1}
    wanted = suite.Suite(title="t", data=[str(small_folder)], models=models, seeds=2, change=change)
    runs = suite.experiments(wanted, options=ComputeOptions(stack=stack))
    results, failures = execute(runs, tmp_path, workers=1)
    assert failures == []
    assert [(r.recipe_name, r.seed) for r in results] == [(m, s) for m in models for s in (0, 1)]
    marks = ["stacked_seeds" in r.history[0] for r in results]
    assert marks == [stacked, stacked, False, False]  # OGM-GE cannot be stacked and is trained all the same


class Card:
    """A card that holds so many seeds at once, and says that it holds more."""

    def __init__(self, monkeypatch, holds, after=0, as_recorded=False):
        self.tried, self.holds, self.after, self.as_recorded = [], holds, after, as_recorded
        self.step, self.alone = StackedSeeds._step, OneSeed._step
        monkeypatch.setattr(StackedSeeds, "_step", lambda engine, index: self.take(engine, index, self.step))
        monkeypatch.setattr(OneSeed, "_step", lambda engine, index: self.take(engine, index, self.alone))
        monkeypatch.setattr("mer_zoo.training.experiment.seeds_that_fit", lambda task: 1 << 30)

    def take(self, engine, index, step):
        seeds = len(engine.models)
        if not self.tried or self.tried[-1] is not engine:
            self.tried.append(engine)
            self.steps = 0
        self.steps += 1
        if seeds > self.holds and self.steps > self.after:
            full = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB.")
            if not self.as_recorded:
                raise full
            try:
                raise full
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        return step(engine, index)

    @property
    def sizes(self):
        return [len(engine.models) for engine in self.tried]


def five_seeds(folder, **changes):
    change = {"training.epochs": 2, **changes}
    wanted = suite.Suite(title="t", data=[str(folder)], models={"MLP": "mlp"}, seeds=5, change=change)
    return suite.experiments(wanted, options=ComputeOptions(stack=True))


@pytest.mark.parametrize("after", [0, 3], ids=["at once", "in the second epoch"])
@pytest.mark.parametrize("as_recorded", [False, True])
def test_a_stack_that_does_not_fit_is_halved(small_folder, tmp_path, monkeypatch, after, as_recorded):
    card = Card(monkeypatch, holds=2, after=after, as_recorded=as_recorded)
    with pytest.warns(UserWarning, match="5 seeds do not fit in memory together. 3 are tried."):
        results, failures = execute(five_seeds(small_folder), tmp_path, workers=1)
    assert failures == []
    assert card.sizes == [5, 3, 2, 2, 1]
    assert [r.seed for r in results] == list(range(5))
    assert [r.history[0].get("stacked_seeds", 1) for r in results] == [2, 2, 2, 2, 1]
    assert len(list(tmp_path.glob("*.result.json"))) == 5


def test_finished_seeds_of_a_stack_outlive_what_breaks_the_others(small_folder, tmp_path, monkeypatch):
    card = Card(monkeypatch, holds=2)
    whole = card.step
    finished = []

    def breaks(engine, index):
        if len(card.sizes) == 4:  # the second pair
            finished.extend(path.name for path in tmp_path.glob("*.result.json"))
            raise ValueError("broken")
        return whole(engine, index)

    card.step = breaks
    with pytest.warns(UserWarning, match="do not fit"):
        results, failures = execute(five_seeds(small_folder), tmp_path, workers=1)
    assert failures == []
    assert len(finished) == 2
    assert [r.history[0].get("stacked_seeds", 1) for r in results] == [2, 2, 1, 1, 1]
    assert card.sizes == [5, 3, 2, 2, 1, 1, 1]


def test_a_seed_that_does_not_fit_alone_says_what_helps(small_folder, tmp_path, monkeypatch):
    Card(monkeypatch, holds=0)
    told = r"MLP, seed \d: it does not fit in the memory of cpu\. Lower `training\.dialogues_per_batch`.+\(CUDA out of"
    with pytest.warns(UserWarning, match="do not fit"):
        results, failures = execute(five_seeds(small_folder), tmp_path, workers=1)
    assert results == []
    assert [bool(re.match(told, failure.message)) for failure in failures] == 5 * [True]
    with pytest.raises(MerZooError, match=told):
        prepare("mlp", str(small_folder), name="MLP").run()


def test_too_little_memory_of_this_machine_is_known_as_such():
    for make in (torch.empty, np.empty):
        with pytest.raises((RuntimeError, MemoryError)) as error:
            make(1 << 58)
        assert memory.ran_out(error.value)


def test_unknown_precision_is_refused():
    with pytest.raises(MerZooError, match="no precision 'fp16'"):
        ComputeOptions(precision="fp16")
    with pytest.raises(MerZooError, match="compile needs captured steps"):
        dataclasses.replace(ComputeOptions(), compile=True, capture=False)


FAULTS = """
import ctypes, resource
from mer_zoo.training import memory

libc, size = ctypes.CDLL(None), 80_000_000  # more than malloc ever keeps by itself
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        block = libc.malloc(size)
        ctypes.memset(block, 1, size)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
with memory.kept():
    faults()
    print(faults())
"""
"""In a process of its own: where the heap cannot grow any more, malloc maps every large block whatever it is told."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc's settings are glibc's")
def test_freed_memory_is_kept_while_computing():
    """Fresh pages are faulted in once, not at every operation."""
    usual, kept = map(int, subprocess.check_output([sys.executable, "-c", FAULTS], text=True).split())
    assert kept < usual / 10 or usual < 100  # another C library, or huge pages
