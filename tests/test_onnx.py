"""Models as ONNX: they say the same without torch, and what ONNX cannot hold is refused."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_cli import run

import mer_zoo
from mer_zoo.errors import MerZooError
from mer_zoo.model import onnx, recipe
from mer_zoo.parts.encoder.bilstm import read
from mer_zoo.training.experiment import keep, prepare

USE = """
import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model/model.onnx")
said = {}
for name, inputs in np.load("inputs.npy", allow_pickle=True).item().items():
    (said[name],) = session.run(["logits"], inputs)
np.savez("said.npz", **said)
print(json.loads(session.get_modelmeta().custom_metadata_map["mer_zoo"])["label_names"])
assert "torch" not in sys.modules and "mer_zoo" not in sys.modules
"""

STRANGE = """
import torch
from torch import nn

class Strange(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.out_width = width

    def forward(self, x, layout):
        return RESULT
"""

SCALED = {"text": "train", "audio": "speaker", "visual": "speaker_causal"}


def trained(name, data, folder, **changes):
    one = prepare(name, data, changes={"training.epochs": 1, **changes})
    return keep(one, one.run(), folder, weights=True)


def strange(result, small, tmp_path):
    tmp_path.mkdir()
    (tmp_path / "strange.py").write_text(STRANGE.replace("RESULT", result))
    part = f"{tmp_path / 'strange.py'}:Strange"
    stages = {"own": {"encoder": part}, "join": {"fusion": "concat"}, "classify": {"head": "mlp"}}
    return trained({"title": "strange", "model": stages}, small, tmp_path), part


@pytest.fixture(scope="module")
def patchy(small):
    """Dialogues of one and of many utterances, some of whose rows are absent."""
    draw = np.random.default_rng(3)

    def without(dialogue):
        here = {m: draw.random(len(dialogue)) > 0.3 for m in dialogue.features}
        return replace(dialogue, features={m: x * here[m][:, None] for m, x in dialogue.features.items()}, present=here)

    found = [without(dialogue) for dialogue in small.conversations]
    one = found[0]
    single = replace(
        one,
        id="single",
        speakers=one.speakers[:1],
        labels=one.labels[:1],
        transcript=None,
        features={m: x[:1] for m, x in one.features.items()},
        present={m: x[:1] for m, x in one.present.items()},
    )
    return replace(small, conversations=(*found, single), splits={}, fingerprint=None)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mlp", {"normalise": SCALED}),
        ("dialoguegcn", {"normalise": "train"}),
    ],
)
def test_a_program_without_torch_gets_the_same_logits(name, changes, small, patchy, tmp_path):
    folder = mer_zoo.export(trained(name, small, tmp_path, **changes), tmp_path / "model", onnx=True)
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "model.onnx",
        "model.safetensors",
        "recipe.yaml",
    ]
    model = mer_zoo.load_model(folder)
    np.save(tmp_path / "inputs.npy", {one.id: mer_zoo.onnx_inputs(model, one) for one in patchy})
    told = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == str(list(small.label_names))
    said = np.load(tmp_path / "said.npz")
    with torch.no_grad():
        for one in patchy:
            wanted = model.model(model.corpus([one]).batch([0])).logits.numpy()
            np.testing.assert_allclose(said[one.id], wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


def test_every_kind_of_recurrent_layer_is_carried(tmp_path):
    draw = np.random.default_rng(0)
    for cell in (torch.nn.LSTM(3, 4, batch_first=True), torch.nn.GRU(3, 4, batch_first=True)):
        from mer_zoo.parts.ops.scan import onnx_operator

        class Alone(torch.nn.Module):
            def __init__(self, cell):
                super().__init__()
                self.cell = cell

            def forward(self, x):
                return onnx_operator(self.cell, x, self.cell.weight_ih_l0)

        sizes = {"x": {1: torch.export.Dim.DYNAMIC}}
        torch.onnx.export(
            Alone(cell),
            (torch.ones(2, 5, 3),),
            tmp_path / "cell.onnx",
            dynamic_shapes=sizes,
            dynamo=True,
            verbose=False,
        )
        import onnxruntime

        session = onnxruntime.InferenceSession(tmp_path / "cell.onnx")
        for length in (1, 9):
            x = draw.normal(size=(2, length, 3)).astype(np.float32)
            (got,) = session.run(None, {session.get_inputs()[0].name: x})
            np.testing.assert_allclose(got, cell(torch.from_numpy(x))[0].detach().numpy(), atol=1e-6)


def test_only_what_becomes_onnx_is_made_of_its_operators():
    class Reading(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = torch.nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            return read(self.cell, x, mapped=False)

    reading, x = Reading().eval(), torch.randn(2, 5, 3)
    exported = torch.export.export(reading, (x,), strict=False).module()
    torch.testing.assert_close(exported(x), reading.cell(x)[0])


@pytest.mark.parametrize(
    ("name", "why"), [("dag_erc", "turn after turn"), ("speaker_nodes", "nodes of its own (speaker, dialogue)")]
)
def test_what_onnx_cannot_hold_is_refused_and_leaves_nothing(name, why, small, tmp_path, capsys):
    path = trained(name, small, tmp_path / "runs")
    code, _, said = run(capsys, "export", path, "--to", tmp_path / "model", "--onnx")
    assert code == 2
    assert f"model '{name}' cannot be written as ONNX: " in said
    assert why in " ".join(said.split())
    assert not (tmp_path / "model").exists()


def test_parts_that_compute_by_length_are_found_out(small, tmp_path):
    path, part = strange("x * (1 + x.shape[0] % 7)", small, tmp_path / "a")
    with pytest.raises(MerZooError, match=r"not installed.*trust"):
        mer_zoo.export(path, tmp_path / "model", onnx=True)
    mer_zoo.export(path, tmp_path / "model", onnx=True, trust=[part])  # ONNX can hold this one
    path, part = strange("x[torch.arange(len(x))[: int(x.shape[0])]] * float(x.shape[0])", small, tmp_path / "b")
    with pytest.raises(MerZooError, match="cannot be written as ONNX"):
        mer_zoo.export(path, tmp_path / "other", onnx=True, trust=[part])


def test_an_operation_that_onnx_lacks_is_named(small, tmp_path):
    path, part = strange("x + torch.linalg.eigvals(x.T @ x).abs().sum().detach()", small, tmp_path / "a")
    with pytest.raises(MerZooError, match=r"cannot be written as ONNX: No ONNX function found for .*aten\.linalg_eig"):
        mer_zoo.export(path, tmp_path / "model", onnx=True, trust=[part])


def test_trust_without_onnx_would_be_dropped(small, tmp_path):
    with pytest.raises(MerZooError, match="trust"):
        mer_zoo.export(trained("mlp", small, tmp_path), tmp_path / "model", trust=["./mine.py:Mine"])


def test_a_graph_that_says_something_else_is_refused(small):
    saved = mer_zoo.train("mlp", small, change={"training.epochs": 1}).saved
    dialogue = small.conversations[0]

    class Other:
        def run(self, names, given):
            return [np.zeros((len(dialogue), len(small.label_names)), np.float32)]

    with pytest.raises(MerZooError, match=f"logits of a dialogue of {len(dialogue)} utterances are off by"):
        onnx._compare(saved, Other(), dialogue)


def test_the_table_names_every_recipe(pytestconfig):
    text = (pytestconfig.rootpath / "benchmarks" / "results" / "onnx.md").read_text()
    named = {line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")}
    assert named == {name for name in recipe.names() if recipe.read(name).recipe.learner is None}
