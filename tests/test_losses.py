import pytest
import torch
from published_parts import LOGITS, Published

from mer_zoo import registry
from mer_zoo.batch.output import Output
from mer_zoo.checking.losses import Seeing, layout_of
from mer_zoo.errors import MerZooError
from mer_zoo.parts.head.cosine import Cosine
from mer_zoo.parts.loss.focal import Focal
from mer_zoo.parts.loss.self_distillation import SelfDistillation

MODALITIES = ("text", "audio", "visual")
NAMES = [card.name for card in registry.cards("loss") if "/" not in card.name]
IEMOCAP_WEIGHTS = [
    11.527775764465332, 6.924920082092285, 4.388216972351074, 6.227231502532959, 7.830179214477539, 3.9577627182006836,
]  # fmt: skip


def joined(numbers, key):
    return torch.cat([numbers[f"dialogue{i}.{key}"] for i in range(3)])


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_focal_computes_the_published_numbers(gamma):
    numbers = Published("mmdfn")
    output, labels = Output(joined(numbers, "logits"), {}, {}), joined(numbers, "label")
    torch.testing.assert_close(
        Focal((1,) * 6, gamma=gamma)(output, labels), numbers[f"loss.focal_gamma{gamma}"], **LOGITS
    )
    weighted = Focal((1,) * 6, gamma=gamma, class_weights=IEMOCAP_WEIGHTS)(output, labels)
    torch.testing.assert_close(weighted, numbers[f"loss.focal_gamma{gamma}_weighted"], **LOGITS)


def test_no_gradient_flows_through_the_focal_factor():
    logits = torch.tensor([[1.0, 0.0]], requires_grad=True)
    Focal((1, 1), gamma=2)(Output(logits, {}, {}), torch.tensor([0])).backward()
    p = logits.detach().softmax(-1)[0]
    torch.testing.assert_close(logits.grad[0], (1 - p[0]) ** 2 * torch.stack([p[0] - 1, p[1]]))


def test_self_distillation_computes_the_published_numbers():
    numbers = Published("sdt")
    heads = {m: joined(numbers, f"{m}_logits") for m in MODALITIES}
    loss = SelfDistillation((1,) * 6, class_weights=IEMOCAP_WEIGHTS)
    total = loss(Output(joined(numbers, "logits"), heads, {}), joined(numbers, "label"))
    torch.testing.assert_close(total, numbers["loss.total"], **LOGITS)
    fused_and_text = loss(Output(joined(numbers, "logits"), {"text": heads["text"]}, {}), joined(numbers, "label"))
    wanted = numbers["loss.fused"] + numbers["loss.text"] + numbers["loss.distil_text"]
    torch.testing.assert_close(fused_and_text, wanted, **LOGITS)


def test_temperature_softens_both_sides():
    z, labels = torch.randn(4, 6, generator=torch.manual_seed(0)), torch.tensor([0, 1, 2, 3])
    z2 = z.flip(1)
    hot = SelfDistillation((1,) * 6, temperature=8)(Output(z, {"text": z2}, {}), labels)
    plain = sum(torch.nn.functional.cross_entropy(x, labels) for x in (z, z2))
    apart = torch.nn.functional.kl_div((z2 / 8).log_softmax(-1), (z / 8).softmax(-1), reduction="batchmean")
    torch.testing.assert_close(hot, plain + apart)


def test_the_teacher_learns_too():
    teacher, student = torch.randn(2, 3, 4, generator=torch.manual_seed(0)).requires_grad_().unbind()
    labels = torch.tensor([0, 1, 2])
    (slope,) = torch.autograd.grad(SelfDistillation((1,) * 4)(Output(teacher, {"text": student}, {}), labels), teacher)
    (plain,) = torch.autograd.grad(torch.nn.functional.cross_entropy(teacher, labels), teacher)
    assert not torch.allclose(slope, plain)


def make(name):
    facts = {"modalities": MODALITIES, "class_counts": (3, 1, 0, 2)}
    loss = Seeing(registry.build(registry.find("loss", name), {}, facts))
    return lambda output, labels: loss(output, labels, layout_of((len(labels),)))


def outputs(rows):
    torch.manual_seed(0)
    z = torch.randn(4, rows, 4, requires_grad=True)
    return z, Output(z[0], dict(zip(MODALITIES, z[1:], strict=True)), {})


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_rows_do_not_count(name):
    labels = torch.tensor([0, -1, 3, 1, -1])
    z, output = outputs(5)
    value = make(name)(output, labels)
    value.backward()
    assert (z.grad[:, labels < 0] == 0).all()
    kept = labels >= 0
    few = Output(output.logits[kept], {m: x[kept] for m, x in output.modality_logits.items()}, {})
    torch.testing.assert_close(make(name)(few, labels[kept]), value)


@pytest.mark.parametrize("name", NAMES)
def test_no_label_at_all_gives_zero_and_no_nan(name):
    z, output = outputs(3)
    value = make(name)(output, torch.full((3,), -1))
    value.backward()
    assert float(value.detach()) == 0
    assert (z.grad == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_sure_and_wrong_is_finite(name):
    z = torch.tensor([[1e3, -1e3, 0, 0]], requires_grad=True)
    value = make(name)(Output(z, dict.fromkeys(MODALITIES, -z), {}), torch.tensor([1]))
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", ["self_distillation", "unimodal_squared"])
def test_losses_that_need_heads_say_so(name):
    with pytest.raises(MerZooError, match=f"loss/{name}: the model has no head per modality"):
        make(name)(Output(torch.zeros(2, 4), {}, {}), torch.tensor([0, 1]))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(MerZooError, match=r"`temperature` is 0\.0"):
        SelfDistillation((1, 1), temperature=0.0)
    with pytest.raises(MerZooError, match="3 class weights for 2 classes"):
        Focal((1, 1), class_weights=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="scale must be above 0"):
        Cosine(3, 2, scale=0.0)


def test_cosine_ignores_lengths():
    head = Cosine(5, 3, scale=15)
    x = torch.randn(4, 5, generator=torch.manual_seed(0))
    torch.testing.assert_close(head(x, None), head(7 * x, None))
    torch.testing.assert_close(head(head.map.weight.detach(), None).diagonal(), torch.full((3,), 15.0))
    zeros = torch.zeros(1, 5, requires_grad=True)
    head(zeros, None).sum().backward()
    assert zeros.grad.isfinite().all()
