import fnmatch

import pytest
import torch
from published_parts import GRADIENTS, LOGITS, Published, load_weights, same_gradients

from mer_zoo import registry
from mer_zoo.batch.index import Shape
from mer_zoo.checking.small_data import conversations
from mer_zoo.corpus import Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.parts.fusion.attention import Attention
from mer_zoo.parts.fusion.film import FiLM
from mer_zoo.parts.fusion.low_rank import LowRank
from mer_zoo.parts.fusion.memory import Memory, two_layers
from mer_zoo.parts.fusion.single_gate import SingleGate
from mer_zoo.parts.fusion.sum import Sum
from mer_zoo.parts.fusion.tensor import TensorFusion

NAMES = [card.name for card in registry.cards("fusion") if "/" not in card.name]
NEED_EQUAL = {"sum", "mean", "attention", "logit_sum"}
NEED_TWO = {"pairwise", "single_gate", "film", "crossmodal"}
BLIND = {"first"}  # to all modalities but the first, by definition
WIDTH = 8


def make(name, modalities, width=WIDTH):
    torch.manual_seed(0)
    card = registry.find("fusion", name)
    return registry.build(card, {}, {"widths": dict.fromkeys(modalities, width)}).eval()


def batches(lengths, modalities, extra=0):
    corpus = Corpus(conversations(lengths, widths=dict.fromkeys(modalities, WIDTH)))
    return corpus.batch(corpus.index(range(len(lengths)), Shape(utterances=sum(lengths) + extra)))


def check_parity(part, numbers, variant, inputs, names, output="output", dialogues=None):
    load_weights(part, numbers.under(f"{variant}.weight"), names)
    inputs = {m: x.clone().requires_grad_() for m, x in inputs.items()}
    y = part(inputs, dialogues)
    torch.testing.assert_close(y, numbers[f"{variant}.{output}"], **LOGITS)
    (y * numbers[f"{variant}.upstream"]).sum().backward()
    same_gradients(part, numbers.under(f"{variant}.grad"), names)
    return inputs


WIDTHS = {"audio": 6, "visual": 4, "text": 5}
HIDDEN = {"audio": 3, "visual": 2, "text": 4}


def test_tensor_fusion_computes_the_published_numbers():
    numbers = Published("fusion_tfn")
    part = TensorFusion(WIDTHS, hidden=HIDDEN, inner=6, out_width=5)
    names = {f"maps.{m}": f"{v}_subnet" for m, v in (("audio", "audio"), ("visual", "video"), ("text", "text"))}
    names |= {"first": "post_fusion_layer_1", "last": "post_fusion_layer_2"}
    inputs = check_parity(part, numbers, "utterance", {m: numbers[f"input.{m}"] for m in WIDTHS}, names)
    for m, x in inputs.items():
        torch.testing.assert_close(x.grad, numbers[f"utterance.grad.input.{m}"], **GRADIENTS)
    torch.testing.assert_close(part.product(inputs), numbers["utterance.before.post_fusion_dropout"], **LOGITS)


def test_low_rank_fusion_computes_the_published_numbers():
    numbers = Published("fusion_lmf")
    part = LowRank(WIDTHS, hidden=HIDDEN, rank=3, out_width=5)
    theirs = (("audio", "audio"), ("visual", "video"), ("text", "text"))
    names = {f"maps.{m}": f"{v}_subnet" for m, v in theirs} | {f"factors.{m}": f"{v}_factor" for m, v in theirs}
    names |= {"weights": "fusion_weights", "bias": "fusion_bias"}
    inputs = check_parity(part, numbers, "utterance", {m: numbers[f"input.{m}"] for m in WIDTHS}, names)
    for m, x in inputs.items():
        torch.testing.assert_close(x.grad, numbers[f"utterance.grad.input.{m}"], **GRADIENTS)


def test_memory_fusion_computes_the_published_numbers():
    numbers = Published("fusion_mfn")
    x = numbers["input.x_equal_dims"]  # [step, dialogue, text | audio | visual]
    steps, count, width = x.shape
    modalities = ("text", "audio", "visual")
    dialogues = batches([steps] * count, modalities).layout
    part = Memory(dict.fromkeys(modalities, width // 3), hidden=5, memory=4)
    # The published inner widths all differ; ours are one setting.
    part.attention, part.proposal = two_layers(30, 6, 30, 0), two_layers(30, 7, 4, 0)
    part.keep, part.write = two_layers(34, 5, 4, 0), two_layers(34, 8, 4, 0)
    names = {f"cells.{m}": f"lstm_{short}" for m, short in zip(modalities, "lav", strict=True)}
    for ours, theirs in {"attention": "att1", "proposal": "att2", "keep": "gamma1", "write": "gamma2"}.items():
        names |= {f"{ours}.0": f"{theirs}_fc1", f"{ours}.3": f"{theirs}_fc2"}
    rows = {m: v.transpose(0, 1).flatten(0, 1) for m, v in zip(modalities, x.chunk(3, -1), strict=True)}
    for key in ("output", "upstream"):
        numbers[f"utterance.{key}"] = numbers[f"utterance.{key}"].transpose(0, 1).flatten(0, 1)
    inputs = check_parity(part, numbers, "utterance", rows, names, dialogues=dialogues)
    wanted = numbers["utterance.grad.input.x_equal_dims"].transpose(0, 1).flatten(0, 1).chunk(3, -1)
    for m, gradient in zip(modalities, wanted, strict=True):
        torch.testing.assert_close(inputs[m].grad, gradient, **GRADIENTS)


@pytest.mark.parametrize("variant", ["gated_x_gate", "gated_y_gate", "film_x", "film_y", "sum"])
def test_gates_compute_the_published_numbers(variant):
    numbers = Published("fusion_gated")
    widths, inputs = {"x": 6, "y": 6}, {m: numbers[f"input.{m}"] for m in "xy"}
    if variant == "sum":
        maps = torch.nn.ModuleDict({m: torch.nn.Linear(6, 5) for m in widths})
        load_weights(maps, numbers.under("sum.weight"), {"x": "fc_x", "y": "fc_y"})
        y = Sum(dict.fromkeys(widths, 5))({m: maps[m](x) for m, x in inputs.items()}, None)
        torch.testing.assert_close(y, numbers["sum.output2"], **LOGITS)
        return
    if variant.startswith("gated"):
        part = SingleGate(widths, gate=variant.split("_")[1], hidden=7, out_width=5)
        names = {"maps.x": "fc_x", "maps.y": "fc_y", "out": "fc_out"}
    else:
        part = FiLM(widths, condition=variant[-1], out_width=5)
        names = {"modulation": "fc", "out": "fc_out"}
    inputs = check_parity(part, numbers, variant, inputs, names, output="output2")
    for m, x in inputs.items():
        torch.testing.assert_close(x.grad, numbers[f"{variant}.grad.input.{m}"], **GRADIENTS)


def test_attention_computes_the_published_numbers():
    numbers = Published("sdt")
    modalities = ("text", "audio", "visual")
    part = Attention(dict.fromkeys(modalities, 8))
    load_weights(part, numbers.under("weight"), {"score": "last_gate.fc"})
    for i in range(3):
        states = {m: numbers[f"dialogue{i}.reduced_{m}"] for m in modalities}
        torch.testing.assert_close(part(states, None), numbers[f"dialogue{i}.fused_features"], **LOGITS)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_modalities(name, count):
    modalities = ("text", "audio", "visual")[:count]
    if count == 1 and name in NEED_TWO:
        with pytest.raises(MerZooError, match="there is only text"):
            make(name, modalities)
        return
    part, batch = make(name, modalities), batches([7, 1, 3], modalities)
    states = {m: x.requires_grad_() for m, x in batch.features.items()}
    y = part(states, batch.layout)
    assert y.shape == (11, part.out_width)
    assert y.isfinite().all()
    y.square().sum().backward()
    states = {modalities[0]: states["text"]} if name in BLIND else states
    dead = registry.find("fusion", name).dead
    live = [p for n, p in part.named_parameters() if not any(fnmatch.fnmatch(n, pattern) for pattern in dead)]
    assert all(x.grad is not None and x.grad.isfinite().all() for x in [*live, *states.values()])


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_no_dialogue_change_nothing(name):
    modalities = ("text", "audio", "visual")
    part, batch, padded = make(name, modalities), batches([7, 3], modalities), batches([7, 3], modalities, extra=4)
    y = part(padded.features, padded.layout)
    assert y.isfinite().all()
    torch.testing.assert_close(y[:10], part(batch.features, batch.layout))


@pytest.mark.parametrize("name", NAMES)
def test_dialogues_do_not_see_each_other(name):
    modalities = ("text", "audio")
    part, batch, alone = make(name, modalities), batches([5, 3], modalities), batches([5], modalities)
    together = part(batch.features, batch.layout)
    torch.testing.assert_close(together[:5], part(alone.features, alone.layout))


def test_memory_sees_only_what_was_said_before():
    modalities = ("text", "audio")
    part, batch = make("memory", modalities), batches([6], modalities)
    later = {m: torch.cat([x[:3], x[3:] + 1]) for m, x in batch.features.items()}
    before, after = part(batch.features, batch.layout), part(later, batch.layout)
    torch.testing.assert_close(before[:3], after[:3])
    assert not torch.allclose(before[3:], after[3:])


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"concat", "first", "sum", "mean", "logit_sum"}))
def test_seeds_can_be_stacked(name):
    modalities = ("text", "audio", "visual")
    parts, batch = [make(name, modalities) for _ in range(2)], batches([4, 2], modalities)
    for parameter in parts[1].parameters():
        parameter.data += 0.1
    stacked, _ = torch.func.stack_module_state(parts)
    inputs = (batch.features, batch.layout)
    outputs = torch.func.vmap(lambda p: torch.func.functional_call(parts[0], p, inputs))(stacked)
    for y, part in zip(outputs, parts, strict=True):
        torch.testing.assert_close(y, part(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(NEED_EQUAL - {"logit_sum"}))
def test_widths_that_differ_are_refused(name):
    with pytest.raises(MerZooError, match=r"text: 3, audio: 4 cannot be .* Project them to one width"):
        registry.build(registry.find("fusion", name), {}, {"widths": {"text": 3, "audio": 4}})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("single_gate", {"gate": "txt"}, "Did you mean 'text'"),
        ("film", {"condition": "speech"}, "no modality named 'speech'"),
        ("tensor", {"hidden": 600}, "use `fusion: low_rank`"),
        ("tensor", {"hidden": {"text": 3}}, "no number for audio"),
        ("low_rank", {"hidden": {"text": 3, "audoi": 3}}, "Did you mean 'audio'"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, settings, message):
    with pytest.raises(MerZooError, match=message):
        registry.build(registry.find("fusion", name), settings, {"widths": {"text": 8, "audio": 8}})


def test_gated_is_the_equation():
    modalities = ("text", "audio")
    part, batch = make("gated", modalities), batches([3], modalities)
    both = torch.cat([batch.features[m] for m in modalities], -1)
    gates = (both @ part.gates.weight.T).sigmoid().chunk(2, -1)
    wanted = sum(g * (batch.features[m] @ part.maps[m].weight.T).tanh() for g, m in zip(gates, modalities, strict=True))
    torch.testing.assert_close(part(batch.features, batch.layout), wanted)


def test_crossmodal_pair_ignores_its_own_modality_as_a_source():
    modalities = ("text", "audio")
    part, batch = make("crossmodal", modalities), batches([5], modalities)
    changed = {**batch.features, "audio": batch.features["audio"].flip(0)}
    before, after = part(batch.features, batch.layout), part(changed, batch.layout)
    assert part.pairs == (("text", "audio"), ("audio", "text"))
    assert not torch.allclose(before[:, :64], after[:, :64])  # text hears another audio
    zero = {**batch.features, "text": torch.zeros_like(batch.features["text"])}
    assert not torch.allclose(before[:, 64:], part(zero, batch.layout)[:, 64:])  # and audio hears text
