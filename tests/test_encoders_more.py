"""Encoders by party, of positions, norms and activations; DialogueRNN and MM-DFN's speaker encoder as published."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from parity_numbers import numbers
from torch import nn

from mer_zoo import registry
from mer_zoo.batch.index import Shape
from mer_zoo.checking.small_data import conversations
from mer_zoo.corpus import Corpus
from mer_zoo.parts.encoder.activation import FUNCTIONS, Activation
from mer_zoo.parts.encoder.dialogue_rnn import DialogueRNN
from mer_zoo.parts.encoder.norm import Norm
from mer_zoo.parts.encoder.party_gru import PartyGRU, by_speaker
from mer_zoo.parts.encoder.party_lstm import PartyLSTM
from mer_zoo.parts.encoder.position_embedding import PositionEmbedding
from mer_zoo.parts.encoder.transformer import positions
from mer_zoo.parts.ops.cells import GRUCell, LSTMCell

WIDTH = 6
MINE = ["party_gru", "party_lstm", "dialogue_rnn", "position_embedding", "norm", "activation"]


def made(name, **settings):
    card = registry.find("encoder", name)
    return registry.build(card, settings, {"width": WIDTH, "speakers": 3}).eval()


@pytest.mark.parametrize("name", MINE)
def test_dialogues_do_not_see_each_other_nor_padding(name):
    torch.manual_seed(0)
    corpus = Corpus(conversations((7, 1, 5)))
    part = made(name)
    x = torch.randn(13, WIDTH)
    together = part(x, corpus.batch([0, 1, 2]).layout)
    alone = [part(rows, corpus.batch([i]).layout) for i, rows in enumerate(x.split([7, 1, 5]))]
    torch.testing.assert_close(together, torch.cat(alone))
    padded = corpus.batch(corpus.index([0, 1, 2, 3], Shape(utterances=20, longest=9))).layout
    more = part(F.pad(x, (0, 0, 0, 7), value=3.0), padded)
    torch.testing.assert_close(more[:13], together)
    assert more.isfinite().all()
    assert together.shape == (13, part.out_width)


@pytest.mark.parametrize("name", MINE)
def test_every_parameter_learns_and_the_input_stays(name):
    corpus = Corpus(conversations((7, 5)))
    part = made(name)
    x = torch.randn(12, WIDTH)
    before = x.clone()
    result = part(x.requires_grad_(), corpus.batch([0, 1]).layout)
    (result * torch.randn_like(result)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    torch.testing.assert_close(x.detach(), before)


@pytest.mark.parametrize("settings", [{"listener": False}, {"listener": True}])
def test_dialogue_rnn_stacks_under_vmap(settings):
    dialogues = Corpus(conversations((4, 3))).batch([0, 1]).layout
    parts = [made("dialogue_rnn", **settings) for _ in range(2)]
    x = torch.randn(2, 7, WIDTH)

    def call(parameters, x):
        return torch.func.functional_call(parts[0], parameters, (x, dialogues))

    stacked = torch.func.vmap(call)(torch.func.stack_module_state(parts)[0], x)
    torch.testing.assert_close(stacked[1], parts[1](x[1], dialogues))


@pytest.mark.parametrize(("ours", "theirs"), [(GRUCell, nn.GRUCell), (LSTMCell, nn.LSTMCell)])
def test_cells_are_those_of_torch(ours, theirs):
    cell, reference = ours(5, 3), theirs(5, 3)
    reference.load_state_dict(cell.state_dict())
    x, h, c = torch.randn(4, 5), torch.randn(4, 3), torch.randn(4, 3)
    state = (h, c) if ours is LSTMCell else h
    torch.testing.assert_close(cell(x, state), reference(x, state))


def test_by_speaker_gives_each_speaker_a_dialogue():
    conversations_ = conversations((7, 4))
    dialogues = Corpus(conversations_).batch([0, 1]).layout
    parted = by_speaker(dialogues, 3)
    start = 0
    for i, conversation in enumerate(conversations_):
        for speaker in range(3):
            own = [start + t for t, s in enumerate(conversation.speaker_index) if s == speaker]
            row = parted.rows[3 * i + speaker]
            assert row[: len(own)].tolist() == own
            assert (row[len(own) :] == 11).all()
            assert parted.lengths[3 * i + speaker] == len(own)
        start += len(conversation)
    assert (parted.rows.flatten()[parted.cells] == torch.arange(11)).all()


@pytest.mark.parametrize(("party", "cell"), [(PartyGRU, nn.GRU), (PartyLSTM, nn.LSTM)])
def test_party_encoders_read_each_speakers_turns(party, cell):
    torch.manual_seed(0)
    conversations_ = conversations((7, 4))
    dialogues = Corpus(conversations_).batch([0, 1]).layout
    part = party(WIDTH, 3, hidden=4, layers=1).eval()
    assert isinstance(part.forwards[0], cell)
    x = torch.randn(11, WIDTH)
    got = part(x, dialogues)
    key = dialogues.dialogue * 3 + dialogues.speaker
    for group in key.unique():
        own = key == group
        ahead, _ = part.forwards[0](x[own].unsqueeze(0))
        back, _ = part.backwards[0](x[own].flip(0).unsqueeze(0))
        torch.testing.assert_close(got[own], torch.cat([ahead[0], back[0].flip(0)], -1))


def test_more_speakers_than_known_share_the_last_place():
    dialogues = Corpus(conversations((9, 8), speakers=5)).batch([0, 1]).layout
    part = PartyGRU(WIDTH, 2, hidden=4).eval()
    clamped = Corpus(conversations((9, 8), speakers=5)).batch([0, 1]).layout
    clamped.speaker = clamped.speaker.clamp(max=1)
    x = torch.randn(17, WIDTH)
    torch.testing.assert_close(part(x, dialogues), part(x, clamped))


@pytest.mark.parametrize("modality", ["audio", "visual", "text"])
def test_party_gru_equals_published(modality):
    file = numbers("mmdfn")
    batch = Corpus(file.conversations({"text": "text"})).batch(range(3))
    part = PartyGRU(12, 2, hidden=6).eval()
    part.load_state_dict(recurrent(file, "weight.rnn_parties"))
    plain = batch.layout
    padded = part(plain.pad(file.states(f"{modality}_after_linear")).flatten(0, 1), plain.with_padding())
    got = plain.unpad(padded.unflatten(0, plain.rows.shape))
    torch.testing.assert_close(got, file.states(f"speaker_encoding_{modality}"), rtol=1e-5, atol=1e-5)


def recurrent(file, prefix):
    return {
        f"{direction}.{layer}.{kind}_l0": file[f"{prefix}.{kind}_l{layer}{suffix}"]
        for direction, suffix in (("forwards", ""), ("backwards", "_reverse"))
        for layer in range(2)
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }


@pytest.mark.parametrize(("name", "speakers"), [("dialoguernn", 2), ("dialoguernn_listener", 3)])
def test_dialogue_rnn_equals_published(name, speakers):
    file = numbers(name)
    batch = Corpus(file.conversations({"text": "text"})).batch(range(3))
    cell = "weight.dialog_rnn_f.dialogue_cell."
    width = batch.features["text"].shape[1]
    global_width = file[cell + "g_cell.weight_hh"].shape[1]
    party_width, emotion_width = (file[f"{cell}{k}_cell.weight_hh"].shape[1] for k in "pe")
    part = DialogueRNN(
        width,
        speakers,
        global_width=global_width,
        party_width=party_width,
        emotion_width=emotion_width,
        listener="listener" in name,
    ).eval()
    cells = {"globals": "g_cell", "party": "p_cell", "emotion": "e_cell"}
    if "listener" in name:
        cells["listener"] = "l_cell"
    state = {}
    for direction, suffix in (("ahead", "f"), ("back", "r")):
        lead = f"weight.dialog_rnn_{suffix}.dialogue_cell."
        state[f"{direction}.attention.weight"] = file[lead + "attention.transform.weight"]
        for ours, theirs in cells.items():
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                state[f"{direction}.{ours}.{kind}"] = file[f"{lead}{theirs}.{kind}"]
    part.load_state_dict(state)
    got = part(batch.features["text"], batch.layout)
    expected = torch.cat([file.states("emotion_forward"), file.states("emotion_backward")], -1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_position_embedding_adds_the_turn():
    dialogues = Corpus(conversations((5, 3))).batch([0, 1]).layout
    x = torch.randn(8, WIDTH)
    turns = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    torch.testing.assert_close(PositionEmbedding(WIDTH)(x, dialogues), x + positions(5, WIDTH, x)[turns])
    learned = PositionEmbedding(WIDTH, learned=3)
    torch.testing.assert_close(learned(x, dialogues), x + learned.weight[turns.clamp(max=2)])


def test_norms_are_those_of_torch():
    x = torch.randn(8, WIDTH)
    torch.testing.assert_close(Norm(WIDTH)(x, None), nn.LayerNorm(WIDTH)(x))
    torch.testing.assert_close(Norm(WIDTH, kind="rms")(x, None), nn.RMSNorm(WIDTH, eps=1e-5)(x))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_activations_are_those_of_torch(function):
    x = torch.randn(8, WIDTH)
    expected = torch.tanh(x) if function == "tanh" else getattr(F, function)(x)
    torch.testing.assert_close(Activation(WIDTH, function=function)(x, None), expected)


WITHOUT_AVX512 = """
import torch
from mer_zoo import registry
from mer_zoo.checking.small_data import tiny_batch

batch = tiny_batch()
x = batch.features["text"].requires_grad_()
names = "bilstm", "bigru", "party_lstm", "party_gru", "dialogue_rnn"
for name, width in (*((name, 6) for name in names), ("bilstm", 99)):
    card = registry.find("encoder", name)
    part = registry.build(card, {} if name == "dialogue_rnn" else {"hidden": 4}, {"width": width, "speakers": 3})
    wide = x if width == 6 else x.repeat(1, 17)[:, :width]  # wider than its gates: mapped before it is padded
    exact = part.eval()(wide, batch.layout)
    with torch.autocast("cpu", torch.bfloat16):
        result = part(wide, batch.layout)
    torch.testing.assert_close(result.float(), exact, atol=0.05, rtol=0.05)
    result.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in part.parameters())
print(torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""


def test_recurrent_cells_run_under_bfloat16_where_the_cpu_has_no_avx512():
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WITHOUT_AVX512]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


@pytest.mark.parametrize(("built", "given"), [(6, 10), (6, 16), (6, 99), (99, 6), (99, 16), (99, 98)])
@pytest.mark.attack("A2")
def test_a_recurrent_encoder_never_reads_beyond_an_input_of_another_width(built, given):
    part = registry.build(registry.find("encoder", "bilstm"), {"hidden": 4}, {"width": built})
    layout = Corpus(conversations((7, 1, 5))).batch([0, 1, 2]).layout
    with pytest.raises((RuntimeError, ValueError)):
        part(torch.randn(13, given), layout)
