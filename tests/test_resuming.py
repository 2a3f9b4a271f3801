"""Runs that are stopped and go on: their files are those of an undisturbed run, to the bit, times aside."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import killing
import numpy as np
import pytest

import mer_zoo
from mer_zoo.cli import main
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.results import writing
from mer_zoo.training import checkpoint
from mer_zoo.training.checkpoint import Checkpoints
from mer_zoo.training.experiment import keep, prepare, run_stack
from mer_zoo.training.options import ComputeOptions

EPOCHS, STOP = 5, 3
OWN = '''
import collections
import itertools
import random

import numpy as np
import torch
from torch import nn

from mer_zoo.parts.balancing.base import Balancing


class Recent:
    """An object of one's own."""

    __slots__ = ("items", "total")

    def __init__(self):
        self.items, self.total = collections.deque(maxlen=3), 0.0


class Remembering(nn.Module):
    """Keeps what it has seen in every way there is but in buffers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.inner = nn.Linear(width, width)
        self.draw, self.other, self.torch = np.random.default_rng(0), random.Random(0), torch.Generator()
        self.recent, self.same = Recent(), None
        self.counts, self.means, self.scale, self.seen = collections.Counter(), {}, 1.0, set()

    def forward(self, x, layout):
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * (self.draw.random() + self.other.random())
            self.recent.items.append(x.detach().mean())
            self.recent.total += float(self.recent.items[-1])
            self.means["mean"] = self.means.get("mean", 0) + x.detach().mean(0)
            self.same = self.means["mean"]
            self.counts["steps"] += 1
            self.seen.add(("step", self.counts["steps"] % 3))
            noise = torch.rand(1, generator=self.torch) + random.random() + np.random.random()
            x = x * self.scale + 0.01 * (self.same + sum(self.recent.items) + noise) + len(self.seen)
        return self.inner(x)


class Cycling(Remembering):
    """Keeps an iterator, which nobody can look into."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.order = itertools.cycle((1.0, 2.0))


class Opening(Remembering):
    """Comes to keep one."""

    def forward(self, x, layout):
        self.order = iter((1.0, 2.0))
        return super().forward(x, layout)


class Freezing(Balancing):
    """Trains the modalities in turns."""

    def on_epoch_start(self, epoch, collect):
        self.turn = getattr(self, "turn", 0) + 1

    def after_backward(self, parameters):
        for number, own in enumerate(parameters.values()):
            for p in own:
                if number == self.turn % 3:
                    p.grad = None


class Momentum(torch.optim.Optimizer):
    """Keeps a step count, float64 sums and a wrapped optimiser."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.steps, self.inner = 0, torch.optim.SGD(self.param_groups[0]["params"], lr=lr, momentum=0.9)

    @torch.no_grad()
    def step(self, closure=None):
        self.steps += 1
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                state = self.state[p]
                state["sum"] = state.get("sum", torch.zeros_like(p, dtype=torch.float64)) + p.grad.double() ** 2
                state["count"] = state.get("count", torch.zeros((), dtype=torch.int64)) + 1
                p.grad.div_((1e-3 + (state["sum"] / state["count"]).sqrt()).to(p.dtype)).div_(1 + 0.1 * self.steps)
        self.inner.step()


class Shrink(torch.optim.lr_scheduler.LRScheduler):
    """Shrinks by what it has done."""

    def __init__(self, optimizer):
        self.done = itertools.count(1)
        super().__init__(optimizer)

    def get_lr(self):
        return [group["lr"] / next(self.done) for group in self.optimizer.param_groups]
'''
PLATEAU = {"name": "plateau", "watch": "loss", "patience": 0, "factor": 0.5}
CYCLE = {"name": "torch.optim.lr_scheduler:CyclicLR", "base_lr": 1e-4, "max_lr": 1e-2, "step_size_up": 2}
PROJECT = {"encoder": {"name": "linear", "out_width": 8}}
HEAD = {"head": {"name": "linear", "dropout": 0.2}}
FUSED = {"title": "t", "model": {"project": PROJECT, "join": {"fusion": "concat"}, "judge": HEAD}}
VOTING = {"title": "t", "model": {"project": PROJECT, "judge": HEAD, "vote": {"fusion": "logit_sum"}}}
OWN_PART = {"title": "t", "model": {"own": {"encoder": "OWN:Remembering"}, "join": {"fusion": "concat"}, "judge": HEAD}}
PADDED = {"options": ComputeOptions(capture=True)}
CASES = {
    "plateau, patience on the loss": (
        "bilstm",
        {"training.schedule": PLATEAU, "training.patience": 2, "training.stop_on": "both", "training.select": "loss"},
        {},
    ),
    "the whole of amb_dsgdn": ("amb_dsgdn", {"balancing.warm_up": 1}, {}),
    "agm, momentum": (FUSED, {"balancing": "agm", "training.optimizer": {"name": "sgd", "momentum": 0.9}}, {}),
    "g_blending, cosine behind warm-up": (
        VOTING,
        {"balancing": {"name": "g_blending", "interval": 1}, "training.schedule": "cosine", "training.warm_up": 2},
        {},
    ),
    "pmr, best on test": (FUSED, {"balancing": "pmr"}, {"protocol": "test-oracle"}),
    "ogm_ge, an optimiser by path": (FUSED, {"balancing": "ogm_ge", "training.optimizer": "torch.optim:NAdam"}, {}),
    "captured, linear": ("mlp", {"training.schedule": "linear"}, PADDED),
    "batch norm, amsgrad": ("cogmen", {"training.optimizer": {"name": "adamw", "amsgrad": True}}, {}),
    "several tasks": ("graphsmile/sentiment", {}, {}),
    "a cyclic rate": ("mlp", {"training.schedule": CYCLE, "training.schedule.cycle_momentum": False}, {}),
    "parts of one's own": (
        OWN_PART,
        {"training.optimizer": "OWN:Momentum", "training.schedule": "OWN:Shrink"},
        {},
    ),
    "balancing of one's own": (FUSED, {"balancing": "OWN:Freezing"}, {}),
}


class Stopped(Exception):
    pass


def stop_in(epoch):
    def stop(record):
        if record["epoch"] == epoch:
            raise Stopped

    return stop


@pytest.fixture
def every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


@pytest.fixture(scope="module")
def data(small):
    """The small dataset with a second label column."""
    dialogues = [
        Conversation(d.id, d.speakers, d.labels, dict(d.features), targets={"sentiment": d.labels % 3}) for d in small
    ]
    return Dataset(small.name, tuple(dialogues), small.label_names, small.splits)


def made(case, own, data, device="cpu"):
    recipe, changes, how = [*json.loads(json.dumps(CASES[case][:2]).replace("OWN", own)), CASES[case][2]]
    return prepare(recipe, data, changes={"training.epochs": EPOCHS, **changes}, device=device, **how)


def seeded():
    random.seed(1)
    np.random.seed(1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error:.*checkpoint")
def test_a_resumed_run_ends_in_the_files_of_an_undisturbed_one(case, own, data, tmp_path, every_epoch, computed_on):
    experiment = made(case, own, data, computed_on)
    seeded()
    keep(experiment, experiment.run(), tmp_path / "undisturbed", weights=True)
    seeded()
    for epoch in (1, STOP):
        with pytest.raises(Stopped):
            experiment.run(stop_in(epoch), Checkpoints(tmp_path / "stopped", strict=True))
    seen = []
    outcome = experiment.run(seen.append, Checkpoints(tmp_path / "stopped", strict=True))
    keep(experiment, outcome, tmp_path / "stopped", weights=True)
    assert seen[0]["epoch"] == STOP
    assert killing.files(tmp_path / "stopped") == killing.files(tmp_path / "undisturbed")


@pytest.mark.parametrize("changes", [{}, {"training.schedule": PLATEAU, "training.patience": 2}])
def test_stacked_seeds_go_on_together(changes, data, tmp_path, every_epoch, computed_on):
    changes = {"training.epochs": EPOCHS, **changes}
    how = {"changes": changes, "device": computed_on, "options": ComputeOptions(stack=True)}
    stack = [prepare("mlp", data, seed=seed, **how) for seed in (0, 1)]
    undisturbed = [outcome.result for outcome in run_stack(stack)]
    with pytest.raises(Stopped):
        list(run_stack(stack, stop_in(2), Checkpoints(tmp_path, strict=True)))
    seen = []
    outcomes = list(run_stack(stack, seen.append, Checkpoints(tmp_path, strict=True)))
    assert seen[0]["epoch"] == 2
    for one, other in zip(undisturbed, (outcome.result for outcome in outcomes), strict=True):
        assert killing.inside(one.model_dump(mode="json")) == killing.inside(other.model_dump(mode="json"))
    with pytest.raises(Stopped):
        list(run_stack(stack, stop_in(2), Checkpoints(tmp_path / "other")))
    with pytest.raises(MerZooError, match=r"seeds is \[0, 1\] there, \[1\] here"):
        list(run_stack(stack[1:], None, Checkpoints(tmp_path / "other", strict=True)))
    with pytest.warns(match=r"seeds is \[0, 1\] there, \[1\] here.*begins anew"):
        list(run_stack(stack[1:], None, Checkpoints(tmp_path / "other")))


@pytest.fixture
def left(data, tmp_path, every_epoch):
    """A run, its folder, and the checkpoint that it left when it was stopped."""
    experiment = prepare("mlp", data, changes={"training.epochs": EPOCHS})
    folder = tmp_path / "runs"
    with pytest.raises(Stopped):
        experiment.run(stop_in(STOP), Checkpoints(folder, strict=True))
    return experiment, folder, next(folder.iterdir())


def first_epoch(experiment, folder, **how):
    """Return the first epoch that is trained when the run goes on."""
    seen = []
    experiment.run(seen.append, Checkpoints(folder, **how))
    return seen[0]["epoch"]


@pytest.mark.parametrize("harm", ["cut", "a bit of a weight", "a bit of the header", "empty", "text", "forged"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.attack("H7")
def test_a_damaged_checkpoint_is_set_aside_and_the_run_begins_anew(left, harm, strict):
    experiment, folder, path = left
    content = bytearray(path.read_bytes())
    if harm == "cut":
        del content[-100:]
    elif harm == "a bit of a weight":
        content[-50] ^= 1
    elif harm == "a bit of the header":
        content[content.index(b"digest") + 12] ^= 1
    elif harm == "forged":  # whoever changes it gives it the right digest, too
        told, arrays = checkpoint.opened(path)
        state = json.loads(arrays.pop("state").numpy().tobytes())
        state[2][0][1] = ["object", 1, [["training", False]]]
        checkpoint.write(path, told, state, [arrays[str(i)] for i in range(len(arrays))])
        content = path.read_bytes()
    else:
        content = b"" if harm == "empty" else b"no such thing" * 100
    path.write_bytes(content)
    with pytest.warns(
        match=f"{path.name}: damaged checkpoint .* now called {path.name}.damaged, and training begins anew"
    ):
        assert first_epoch(experiment, folder, strict=strict) == 0
    assert path.with_name(f"{path.name}.damaged").read_bytes() == content


@pytest.mark.attack("H8")
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(left, data, monkeypatch):
    experiment, folder, path = left
    other = prepare("mlp", data, seed=1, changes={"training.epochs": EPOCHS, "training.learning_rate": 0.5})
    stem = writing.Path(path.name.replace("seed0", "seed1").replace(experiment.identity.run, other.identity.run))
    with pytest.warns(
        match=r"another run: training.learning_rate is 0.001 there, 0.5 here; seeds is \[0\] there, \[1\]"
    ):
        assert first_epoch(other, folder, strict=True) == 0  # beside it
    (folder / next(p for p in folder.iterdir() if p.name == stem.name)).write_bytes(path.read_bytes())
    with pytest.raises(
        MerZooError, match=r"training.learning_rate is 0.001 there, 0.5 here; seeds is .* or remove the"
    ):
        first_epoch(other, folder, strict=True)
    with pytest.warns(match=r"0.5 here; .* This run begins anew"):
        assert first_epoch(other, folder) == 0
    here = checkpoint.Environment.here("cpu").model_copy(update={"torch": "9.9"})
    monkeypatch.setattr(checkpoint.Environment, "here", lambda device: here)
    with pytest.raises(MerZooError, match=r'torch is ".*" there, "9.9" here'):
        first_epoch(experiment, folder, strict=True)


def test_without_resume_a_run_begins_anew_and_says_so(left):
    experiment, folder, _ = left
    with pytest.warns(match="not used without --resume"):
        assert first_epoch(experiment, folder, resume=False, strict=True) == 0


@pytest.mark.attack("H9")
def test_a_full_disk_costs_the_checkpoint_and_not_the_run(data, tmp_path, every_epoch, monkeypatch):
    experiment = prepare("mlp", data, changes={"training.epochs": EPOCHS})
    sync, synced = writing.os.fsync, []

    def full_at_first(file):
        synced.append(file)
        if len(synced) < 3:
            raise OSError(28, "No space left on device")
        sync(file)

    monkeypatch.setattr(writing.os, "fsync", full_at_first)
    with pytest.warns(match="No space left on device.* Training goes on") as said:
        outcome = experiment.run(None, Checkpoints(tmp_path, strict=True))
    assert len(said) == 1
    assert outcome.result.epochs_run == EPOCHS
    assert [path.suffix for path in tmp_path.iterdir()] == [".checkpoint"]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("Cycling", "`order` of Cycling holds a itertools.cycle, which is no plain data"),
        ("Opening", "`order` of Opening holds a builtins.tuple_iterator, which is no plain data"),
    ],
)
def test_a_part_that_keeps_what_is_no_data_says_so_before_the_second_epoch(part, reason, own, data, tmp_path):
    recipe = json.loads(json.dumps(OWN_PART).replace("OWN", own).replace("Remembering", part))
    experiment = prepare(recipe, data, changes={"training.epochs": 2})
    with pytest.warns(match=f"leaves no checkpoint: {reason}"), pytest.raises(Stopped):
        experiment.run(stop_in(1), Checkpoints(tmp_path, strict=True))
    assert list(tmp_path.glob("*.checkpoint")) == []


def test_a_schedule_that_draws_its_rates_cannot_be_resumed(own, data, tmp_path, every_epoch):
    Path(own).with_name("drawn.py").write_text(
        "import random\nfrom torch.optim.lr_scheduler import LRScheduler\n\nclass Drawn(LRScheduler):\n"
        "    def get_lr(self):\n        return [random.random() for group in self.optimizer.param_groups]\n"
    )
    schedule = f"{Path(own).with_name('drawn.py')}:Drawn"
    experiment = prepare("mlp", data, changes={"training.epochs": EPOCHS, "training.schedule": schedule})
    with pytest.raises(Stopped):
        experiment.run(stop_in(2), Checkpoints(tmp_path / "runs", strict=True))
    with pytest.raises(MerZooError, match="Drawn' gives other learning rates than it gave"):
        first_epoch(experiment, tmp_path / "runs", strict=True)


@pytest.mark.parametrize(("seconds", "seen"), [(2.4, [0, 0, 0]), (5.1, [0, 1, 1])])
def test_only_a_run_that_takes_long_writes_a_checkpoint(seconds, seen, data, tmp_path, monkeypatch):
    now, found = [0.0], []  # the epochs last as long as the test says, on any machine
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def epoch(record):
        found.append(len(list(tmp_path.iterdir())))
        now[0] += seconds

    prepare("mlp", data, changes={"training.epochs": 3}).run(epoch, Checkpoints(tmp_path))
    assert found == seen


def test_train_in_python_keeps_its_checkpoint_in_a_folder_of_its_own(data, tmp_path, every_epoch):
    change, seen = {"training.epochs": EPOCHS}, []
    with pytest.raises(Stopped):
        mer_zoo.train("mlp", data, change=change, progress=stop_in(STOP), resume=tmp_path / "mine")
    assert [path.suffix for path in (tmp_path / "mine").iterdir()] == [".checkpoint"]
    outcome = mer_zoo.train("mlp", data, change=change, progress=seen.append, resume=tmp_path / "mine")
    assert [record["epoch"] for record in seen] == list(range(STOP, EPOCHS))
    assert outcome.result.predictions == mer_zoo.train("mlp", data, change=change).result.predictions
    assert list((tmp_path / "mine").iterdir()) == []


EVERY_EPOCH = """
import sys
from mer_zoo.training import checkpoint
checkpoint.EVERY, checkpoint.SHARE = 0.0, float("inf")
from mer_zoo.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="signals of Linux")
@pytest.mark.attack("H10")
def test_train_that_is_killed_goes_on(small_folder, tmp_path, capsys):
    common = ["train", "amb_dsgdn", "--data", str(small_folder), "-o", "training.epochs=6", "--output"]
    command = [sys.executable, "-c", EVERY_EPOCH, *common, str(tmp_path / "killed")]
    for number, epoch in enumerate((1, 2)):
        process = subprocess.Popen([*command, *["--resume"] * number], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(process, tmp_path / "killed", epoch)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (path,) = (tmp_path / "killed").glob("*.checkpoint")
    path.with_name(f".{path.name}.12345678.tmp").write_bytes(b"half")
    assert main([*common, str(tmp_path / "killed"), "--resume"]) == 0
    assert "Goes on behind epoch" in capsys.readouterr().err
    assert main([*common, str(tmp_path / "undisturbed")]) == 0
    killing_files = killing.files(tmp_path / "killed")
    assert killing_files == killing.files(tmp_path / "undisturbed")
    assert len(killing_files) == 2
    assert main([*common, str(tmp_path / "killed"), "--resume"]) == 0
    assert "whole already" in capsys.readouterr().err


def until(process, folder, count):
    """Wait until so many checkpoints were written."""
    seen, deadline = {path.stat().st_mtime_ns for path in folder.glob("*.checkpoint")}, time.monotonic() + 120
    before = len(seen)
    while len(seen) < before + count:
        seen |= {path.stat().st_mtime_ns for path in folder.glob("*.checkpoint")}
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
