"""Our recipes compute what the published implementations compute, number for number."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mer_zoo.batch import launch_cost
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment
from mer_zoo.model import formula, parity, parity_mapping, recipe
from mer_zoo.model.model import Facts, Model

FOLDER = Path(__file__).parent / "parity"
MODELS = [
    "amb_dsgdn_iemocap",
    "amb_dsgdn_meld",
    "dialoguegcn",
    "dialoguegcn_mianzhang",
    "mmgcn",
    "bclstm",
    "bclstm_attention",
    "dialoguernn",
    "dialoguernn_listener",
    "dagerc",
    "sdt",
    "mmdfn",
    "cogmen",
    "m3net",
    "graphsmile",
    "corect",
]
WITHOUT_GRAPH = {"bclstm", "bclstm_attention", "dialoguernn", "dialoguernn_listener", "sdt"}  # so no kernel is used
KERNELS = {"chosen": None, "Segment": Segment, "Dense": Dense, "Band": Band, "Planes": Planes, "DGL": DGL}
CASES = [(name, kernel) for name in MODELS for kernel in (["chosen"] if name in WITHOUT_GRAPH else KERNELS)]


@pytest.mark.parametrize("name", MODELS)
def test_models_of_a_graph_are_run_by_every_kernel(name):
    with np.load(FOLDER / f"{name}.npz") as archive:
        shapes = {key[7:]: list(archive[key].shape) for key in archive.files if key.startswith("weight.")}
        meta = json.loads(str(archive["meta"])) | {"shape": shapes}
    mapping = parity_mapping.read(parity_mapping.find(Path(name)), meta)
    assert (recipe.read(mapping.recipe).recipe.graph is None) == (name in WITHOUT_GRAPH)


@pytest.mark.parametrize("launches", ["cheap", "costly"])
@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_parity(name, launches, kernel):
    kernel = KERNELS[kernel]
    if name == "graphsmile" and kernel is Planes:
        with pytest.raises(MerZooError, match="cannot hold edges between modalities of different utterances"):
            parity.check(FOLDER / f"{name}.npz", kernel)
        return
    with launch_cost.assumed(launches == "costly"):
        differences = parity.check(FOLDER / f"{name}.npz", kernel)
    assert [d for d in differences if not d.passes] == []
    assert {d.quantity for d in differences} >= {"loss.total", "loss of step 4", "logits of dialogue 1"}
    assert sum(d.quantity.startswith("gradient") for d in differences) > 15


@pytest.mark.parametrize("name", MODELS)
def test_a_small_deviation_is_noticed(name, tmp_path):
    with np.load(FOLDER / f"{name}.npz") as archive:
        arrays = dict(archive)
    dead = json.loads(str(arrays["meta"])).get("dead_parameters_no_gradient", ())
    live = [k for k in arrays if k.startswith("weight.") and k.removeprefix("weight.") not in dead]
    key = [k for k in live if k.endswith("bias")][-1]  # of the classifier, in every file
    arrays[key] = arrays[key] * 1.01
    np.savez(tmp_path / f"{name}.npz", **arrays)
    assert any(not d.passes for d in parity.check(tmp_path / f"{name}.npz"))


def test_a_file_of_unknown_name_is_refused(tmp_path):
    (tmp_path / "mmgcm.npz").write_bytes(b"")
    with pytest.raises(MerZooError, match="Did you mean 'mmgcn'"):
        parity.check(tmp_path / "mmgcm.npz")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "mmgcn.npz").write_bytes(b"not a zip archive")
    with pytest.raises(MerZooError, match=r"mmgcn.npz: is not a readable .npz \(it is no archive\)"):
        parity.check(tmp_path / "mmgcn.npz")


class BcLSTM(nn.Module):
    """bc-LSTM of torch's own modules, with the published names."""

    def __init__(self, width, hidden, middle, classes):
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.linear, self.smax_fc = nn.Linear(2 * hidden, middle), nn.Linear(middle, classes)

    def forward(self, x):
        return self.smax_fc(self.linear(self.lstm(x)[0]).relu())


def bc_lstm_file(path, width=9, hidden=4, middle=3, classes=7, lengths=(3, 5, 1), **meta):
    """A parity file of sizes, speakers and class weights that no committed file has, computed by torch alone."""
    torch.manual_seed(0)
    model = BcLSTM(width, hidden, middle, classes)
    texts = [torch.randn(length, width) for length in lengths]
    labels = [torch.randint(classes, (length,)) for length in lengths]
    arrays = {f"weight.{name}": p.detach().clone() for name, p in model.named_parameters()}
    padded = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-5)
    steps = []
    for step in range(5):
        logits = [x[:n] for x, n in zip(model(padded), lengths, strict=True)]
        loss = nn.functional.cross_entropy(torch.cat(logits), torch.cat(labels))
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            arrays |= {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}
            arrays |= {"loss.total": loss.detach()}
            arrays |= {f"dialogue{i}.logits": x.detach() for i, x in enumerate(logits)}
        steps.append(loss.item())
        optimizer.step()
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        speaker = torch.arange(len(label)) % 3
        arrays |= {f"dialogue{i}.text": text, f"dialogue{i}.label": label, f"dialogue{i}.speaker": speaker}
    told = {
        "constructor": {"D_m": width, "D_e": hidden, "D_h": middle, "attention": False},
        "n_speakers": 3,
        "n_classes": classes,
        "lengths": lengths,
        "class_weights": None,
        "dead_parameters_no_gradient": [],
        "n_live_parameters_this_file": sum(p.numel() for p in model.parameters()),
        **meta,
    }
    saved = {name: array.numpy() for name, array in arrays.items()}
    np.savez(path, **saved, **{"training.total_loss_per_step": steps, "meta": json.dumps(told)})
    return path


def test_a_file_of_other_sizes_and_without_class_weights_passes(tmp_path):
    differences = parity.check(bc_lstm_file(tmp_path / "bclstm_seven_classes.npz"))
    assert [d for d in differences if not d.passes] == []
    assert sum(d.quantity.startswith("gradient") for d in differences) == 20


@pytest.mark.parametrize(
    ("stem", "changed", "expected"),
    [
        ("mmgcn", {"config": "MELD", "n_layers": 5}, {"spectral.layer.depth": 5, "project.encoder.out_width": 12}),
        ("mmgcn", {"constructor.D_e": 11}, {"project.encoder.out_width": 22, "context.encoder.hidden": 11}),
        ("dialoguegcn_mianzhang", {"constructor.g_dim": 34}, {"context.encoder.hidden": 17}),
    ],
)
def test_settings_follow_the_file(stem, changed, expected):
    with np.load(FOLDER / f"{stem}.npz") as archive:
        meta = json.loads(str(archive["meta"]))
    for key, value in changed.items():
        *outer, last = key.split(".")
        (meta[outer[0]] if outer else meta)[last] = value
    mapping = parity_mapping.read(parity_mapping.find(Path(stem)), meta | {"shape": {}})
    for key, value in expected.items():
        assert mapping.settings[f"model.{key}"] == value
    depth = sum(".maps." in name for name in mapping.weights)
    assert depth == (meta["n_layers"] if stem == "mmgcn" else 0)
    assert stem != "mmgcn" or mapping.recipe == f"mmgcn/{meta['config'].lower()}"


OTHER = {
    "amb_dsgdn_meld": {"hidden_dim": 8, "attention_heads_encoder": 2},
    "bclstm_attention": {"constructor.D_e": 3},
    "cogmen": {"constructor.seqcontext_nlayer": 3, "encoder_heads": 14, "constructor.gnn_nheads": 2},
    "corect": {
        "constructor.encoder_nlayers": 1, "constructor.num_crossmodal": 3, "constructor.num_self_att": 1,
        "constructor.hidden_size": 6, "constructor.graph_transformer_nheads": 3, "constructor.wf": 1,
    },
    "dagerc": {"constructor.gnn_layers": 3, "constructor.mlp_layers": 1, "constructor.windowp": 2},
    "dialoguegcn": {"constructor.D_e": 3, "constructor.graph_hidden_size": 5},
    "dialoguernn": {"constructor.D_g": 4, "constructor.D_p": 5, "constructor.D_e": 3, "constructor.D_h": 6},
    "graphsmile": {"config": "MELD", "constructor.heter_n_layers": [5, 5, 5], "constructor.win": [3, 3]},
    "m3net": {"config": "MELD", "constructor.num_K": 3, "constructor.num_L": 2, "constructor.D_g": 12},
    "mmdfn": {"config": "MELD", "constructor.D_e": 4, "constructor.Deep_GCN_nlayers": 5},
    "mmgcn": {"config": "MELD", "n_layers": 4, "constructor.D_e": 3},
    "sdt": {"config": "MELD", "constructor.n_head": 2, "constructor.hidden_dim": 12, "constructor.temp": 8},
}  # fmt: skip
"""Sizes and configurations that no committed file has: seven classes and nine speakers besides."""


@pytest.mark.parametrize("stem", OTHER)
def test_every_weight_is_mapped_in_a_file_of_other_sizes(stem):
    with np.load(FOLDER / f"{stem}.npz") as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive.files if archive[name].dtype.kind in "fi"}
        meta = json.loads(str(archive["meta"])) | {"n_speakers": 9, "n_classes": 7, "class_weights": None}
    for key, value in OTHER[stem].items():
        *outer, last = key.split(".")
        (meta[outer[0]] if outer else meta)[last] = value
    shapes = {name[7:]: list(array.shape) for name, array in arrays.items() if name.startswith("weight.")}
    mapping = parity_mapping.read(parity_mapping.find(Path(stem)), meta | {"shape": shapes})
    widths = parity._conversations(parity.Numbers(arrays, meta), mapping)[0].widths
    filled = parity.plan(mapping, meta, widths)
    assert mapping.weights.keys() == Model(filled, Facts(widths, 9, 7)).state_dict().keys()


def test_a_weight_that_does_not_fit_is_named_with_both_shapes(tmp_path):
    path = bc_lstm_file(tmp_path / "bclstm.npz", hidden=4)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["weight.linear.weight"] = arrays["weight.linear.weight"].T
    np.savez(path, **arrays)
    with pytest.raises(MerZooError, match=r"first\.weight has shape \[3, 8\].*linear\.weight \[8, 3\]"):
        parity.check(path)


def test_a_published_weight_that_nothing_is_mapped_to_fails(tmp_path):
    path = bc_lstm_file(tmp_path / "bclstm.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["weight.extra.bias"], arrays["grad.extra.bias"] = np.zeros(4, np.float32), np.ones(4, np.float32)
    np.savez(path, **arrays)
    with pytest.raises(MerZooError, match=r"no parameter of ours belongs to extra\.bias \(4 of 4 entries\)"):
        parity.check(path)


def test_a_missing_gradient_fails(tmp_path):
    path = bc_lstm_file(tmp_path / "bclstm.npz")
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files if key != "grad.linear.bias"}
    np.savez(path, **arrays)
    with pytest.raises(MerZooError, match="parameters with effect, but holds gradients of"):
        parity.check(path)


def test_what_cancels_must_have_no_gradient():
    mapping = parity_mapping.ParityMapping("", {}, {}, {}, "", {"ours": "a"}, ["b"])
    arrays = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(4)}
    assert mapping.forgotten(arrays, ["a", "b", "c"]) == ["c (4 of 4 entries)"]


@pytest.mark.parametrize("text", ["__import__('os')", "a.__class__", "(lambda: 1)()", "[x for x in a]", "2 **", "b[0]"])
def test_a_formula_runs_no_code(text):
    with pytest.raises(MerZooError):
        formula.evaluate(text, {"a": {"n": 3}})
