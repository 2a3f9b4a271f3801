import pytest
import torch
from published_parts import LOGITS, Published

from mer_zoo import registry
from mer_zoo.batch.output import Output
from mer_zoo.checking.losses import Seeing, layout_of
from mer_zoo.errors import MerZooError
from mer_zoo.parts.head.cosine import Cosine
from mer_zoo.parts.loss.focal import Focal
from mer_zoo.parts.loss.focal_contrastive import FocalContrastive
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
    z = torch.randn(5, rows, 4, requires_grad=True)
    return z, Output(z[0], dict(zip(MODALITIES, z[1:4], strict=True)), {}, judged=z[4])


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_rows_do_not_count(name):
    labels = torch.tensor([0, -1, 3, 1, -1])
    z, output = outputs(5)
    value = make(name)(output, labels)
    value.backward()
    assert (z.grad[:, labels < 0] == 0).all()
    kept = labels >= 0
    heads = {m: x[kept] for m, x in output.modality_logits.items()}
    few = Output(output.logits[kept], heads, {}, judged=output.judged[kept])
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
    value = make(name)(Output(z, dict.fromkeys(MODALITIES, -z), {}, judged=z), torch.tensor([1]))
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", ["self_distillation", "unimodal_squared", "unimodal_sum"])
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


def judged(seed=0, count=9, width=4):
    draw = torch.Generator().manual_seed(seed)
    states, text, audio = (torch.randn(count, width, generator=draw) for _ in range(3))
    labels = torch.tensor([0, 1, 0, 2, 1, 0, -1, 3, 2])
    return Output(torch.zeros(count, 4), {}, {"text": text, "audio": audio}, judged=states), labels


def test_the_contrast_is_that_of_the_equation():
    """One utterance after the other, as it is written; classes 0, 1 and 2 have pairs, class 3 has none."""
    output, labels = judged()
    counts, tau, gamma, rho = (6, 3, 2, 1), 0.5, 3.0, 0.7
    z = output.judged / output.judged.norm(dim=1, keepdim=True)
    total = weights = 0.0
    for i, own in enumerate(labels.tolist()):
        others = [j for j in range(len(labels)) if j != i and labels[j] >= 0]
        alike = [j for j in others if labels[j] == own]
        if own < 0 or not alike:
            continue
        p = torch.stack([z[i] @ z[j] / tau for j in others]).softmax(0)
        terms = [(1 - p[others.index(j)]) ** gamma * p[others.index(j)].log() for j in alike]
        weight = (sum(counts) / counts[own]) ** rho
        total, weights = total - weight * sum(terms) / len(terms), weights + weight
    loss = FocalContrastive(counts, contrast=0.5, correlation=0.0, temperature=tau, focus=gamma, rarity=rho)
    torch.testing.assert_close(loss(output, labels), 0.5 * total / weights + 0.5 * torch.tensor(4.0).log())


def test_the_correlation_is_that_of_the_equation():
    output, labels = judged()
    f, g = (x[labels >= 0] - x[labels >= 0].mean(0) for x in output.features.values())
    covariances = [torch.cov(x.t(), correction=0) for x in (f, g)]
    wanted = -((f * g).sum(1).mean() - torch.trace(covariances[0] @ covariances[1]) / 2) / 4
    loss = FocalContrastive((1,) * 4, contrast=0.0, correlation=0.5)
    torch.testing.assert_close(loss(output, labels), 0.5 * wanted + 0.5 * torch.tensor(4.0).log())
    alone = Output(output.logits, {}, {"text": output.features["text"]}, judged=output.judged)
    torch.testing.assert_close(loss(alone, labels), 0.5 * torch.tensor(4.0).log())


def test_no_two_utterances_of_one_class_are_no_contrast():
    output, _ = judged(count=3)
    output.judged.requires_grad_()
    loss = FocalContrastive((1,) * 4, contrast=0.5, correlation=0.0)(output, torch.tensor([0, 1, -1]))
    torch.testing.assert_close(loss, 0.5 * torch.tensor(4.0).log())
    loss.backward()
    assert not output.judged.grad.any()


@pytest.mark.parametrize(
    "settings", [{"contrast": 0.6}, {"correlation": -0.1}, {"temperature": 0.0}, {"focus": 0.5}, {"focus": -1.0}]
)
def test_shares_and_exponents_out_of_range_are_refused(settings):
    with pytest.raises(MerZooError, match=next(iter(settings))):
        FocalContrastive((1, 1), **settings)


def test_every_head_has_its_share():
    z, output = outputs(4)
    labels, facts = torch.tensor([0, 3, -1, 2]), (3, 1, 1, 2)
    nll = registry.build(registry.find("loss", "nll"), {}, {"class_counts": facts})
    wanted = nll(output, labels) + 0.25 * sum(nll(Output(x, {}, {}), labels) for x in z[1:4])
    share = registry.build(registry.find("loss", "unimodal_sum"), {"share": 0.25}, {"class_counts": facts})
    torch.testing.assert_close(share(output, labels), wanted)
    with pytest.raises(MerZooError, match=r"`share` is -1"):
        registry.build(registry.find("loss", "unimodal_sum"), {"share": -1.0}, {"class_counts": facts})
