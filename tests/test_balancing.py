"""Every balancing strategy: the published numbers, and what each must do with any data and any model."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from published_parts import GRADIENTS, LOGITS, Published

from mer_zoo import registry
from mer_zoo.batch.index import Shape
from mer_zoo.batch.output import Output
from mer_zoo.checking.small_data import conversations
from mer_zoo.corpus import Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.stages import Flow
from mer_zoo.model.step import Step
from mer_zoo.parts.balancing.agm import AGM
from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.parts.balancing.g_blending import GBlending
from mer_zoo.parts.balancing.mmpareto import MMPareto
from mer_zoo.parts.balancing.ogm_ge import OGMGE
from mer_zoo.parts.balancing.opm import OPM
from mer_zoo.parts.balancing.pmr import PMR
from mer_zoo.parts.loss.nll import NLL

CLASSES = 6
NAMES = [card.name for card in registry.cards("balancing") if "/" not in card.name and card.name != "none"]
EAGER = {
    "opm": {"probability": 1.0, "warm_up": 0},
    "adaptive_dropout": {"probability": 1.0},
    "g_blending": {"held_out": 0.6},
}


# ------------------------------------------------------------------------------------------------ published numbers


def linear(x, weights, name):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def alone(unimodal):
    """The stub of a model that knows what each modality would decide by alone."""
    return SimpleNamespace(unimodal=lambda flow: unimodal)


def trainable(weights):
    return {name: w.clone().requires_grad_() for name, w in weights.items()}


def audio_visual(numbers, case):
    """The stub of the OGM-GE and PMR files: two tanh encoders and a head over both, or one each."""
    w = trainable(numbers.under(f"{case}.weight"))
    x = {"audio": numbers["input.audio"], "visual": numbers["input.visual"]}
    features = {m: linear(v, w, f"{m}_net").tanh() for m, v in x.items()}
    if "fusion_module.fc_out.weight" in w:
        halves = dict(zip(x, w["fusion_module.fc_out.weight"].chunk(2, -1), strict=True))
        bias = w["fusion_module.fc_out.bias"]
        unimodal = {m: features[m] @ halves[m].T + bias / 2 for m in x}
    else:
        unimodal = {m: linear(features[m], w, f"fusion_module.fc_{c}") for m, c in zip(x, "xy", strict=True)}
    logits = unimodal["audio"] + unimodal["visual"]
    return w, features, unimodal, Output(logits, {}, features)


OGM_CASES = [f"{fusion}.{ahead}" for fusion in ("concat", "sum") for ahead in ("audio_ahead", "visual_ahead")]


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("case", OGM_CASES)
def test_ogm_ge_computes_the_published_numbers(case, alpha):
    numbers = Published("balancing_ogm_ge")
    labels = numbers["input.label"]
    for variant in ("OGM", "OGM_GE"):
        w, features, unimodal, output = audio_visual(numbers, case)
        part = OGMGE(("audio", "visual"), 5, alpha=alpha, noise=variant == "OGM_GE", epochs=51)
        part.on_features(alone(unimodal), Flow(SimpleNamespace(labels=labels), features, None))
        F.cross_entropy(output.logits, labels).backward()
        after = f"{case}.{variant}.alpha{alpha}"
        for m, short in (("audio", "a"), ("visual", "v")):
            torch.testing.assert_close(1 - part.rates(output)[m], numbers[f"{after}.coeff_{short}"], **LOGITS)
        for name, value in w.items():
            torch.testing.assert_close(value.grad, numbers[f"{case}.grad_before.{name}"], **GRADIENTS)
        torch.manual_seed(41 + 5)
        part.after_backward({m: [w[f"{m}_net.weight"], w[f"{m}_net.bias"]] for m in ("audio", "visual")})
        for m in ("audio", "visual"):
            torch.testing.assert_close(
                w[f"{m}_net.weight"].grad, numbers[f"{after}.grad_after.{m}_net.weight"], **GRADIENTS
            )
            torch.testing.assert_close(
                w[f"{m}_net.bias"].grad, numbers[f"{case}.grad_before.{m}_net.bias"], **GRADIENTS
            )


def test_ogm_ge_rests_after_its_epochs():
    numbers = Published("balancing_ogm_ge")
    w, features, unimodal, output = audio_visual(numbers, "concat.audio_ahead")
    part = OGMGE(("audio", "visual"), 5, epochs=51)
    part.on_epoch_start(51, lambda count: [])
    part.on_features(alone(unimodal), Flow(SimpleNamespace(labels=numbers["input.label"]), features, None))
    F.cross_entropy(output.logits, numbers["input.label"]).backward()
    part.after_backward({m: [w[f"{m}_net.weight"]] for m in ("audio", "visual")})
    wanted = numbers["concat.audio_ahead.OGM.alpha0.1.epoch51_outside_window.grad_after.audio_net.weight"]
    torch.testing.assert_close(w["audio_net.weight"].grad, wanted, **GRADIENTS)
    assert float(part.rates(output)["audio"]) == 0


def test_ogm_ge_slows_down_the_first_of_equals():
    factors = OGMGE(("audio", "visual"), 5, alpha=0.3).factors(torch.tensor([1.5, 1.5]))
    torch.testing.assert_close(factors, torch.tensor([1 - math.tanh(0.3), 1.0]))


def test_ogm_ge_compares_three_modalities_with_the_weakest():
    factors = OGMGE(("text", "audio", "visual"), 5, alpha=0.3).factors(torch.tensor([2.0, 1.0, 1.5]))
    torch.testing.assert_close(factors, torch.tensor([1 - math.tanh(0.6), 1.0, 1 - math.tanh(0.45)]))


class ForcedOPM(OPM):
    """OPM with a recorded draw instead of a random one."""

    def draw(self, rates, utterances):
        return self.mask, torch.tensor(self.probability == 1.0)


OPM_CASES = ["drawn", "some_all_dropped", "none_lost", "everything_dropped", "not_executed", "warm_up"]


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("case", OPM_CASES)
@pytest.mark.parametrize("ahead", ["modality1_ahead", "modality2_ahead"])
def test_opm_computes_the_published_numbers(ahead, case, detach):
    numbers = Published("balancing_opm")
    settings = {"base": 0.4, "sensitivity": 0.9} if case == "none_lost" else {"base": 0.5, "sensitivity": 0.5}
    probability = 0.0 if case == "not_executed" else 1.0
    part = ForcedOPM(("1", "2"), 5, **settings, probability=probability, detach=detach)
    part.mask = numbers.get(f"{ahead}.{case}.mask", torch.ones(7, 2)) > 0
    part.on_epoch_start(5 if case == "warm_up" else 6, lambda count: [])
    w = trainable(numbers.under(f"{ahead}.weight"))
    labels = numbers["input.label"]
    features = {m: linear(numbers[f"input.modality{m}"], w, f"encoder_{m}.lin").tanh() for m in "12"}
    head, bias = w["fusion_model.fxy.weight"], w["fusion_model.fxy.bias"]
    halves = dict(zip("12", head.detach().chunk(2, -1), strict=True))

    unimodal = {m: features[m] @ halves[m].T + bias.detach() / 2 for m in "12"}
    flow = part.on_features(alone(unimodal), Flow(tiny(("1", "2"), features, labels), features, None))
    output = Output(torch.cat([flow.states["1"], flow.states["2"]], -1) @ head.T + bias, {}, flow.states, flow.notes)
    judged = part.on_labels(labels, output)
    total = part.total_loss(NLL((1,) * 5)(output, judged), output, judged)
    total.backward()
    prefix = f"{ahead}.{case}"
    if f"{prefix}.q" in numbers:
        torch.testing.assert_close(torch.stack([*part.rates(output).values()]), numbers[f"{prefix}.q"], **LOGITS)
    if case == "everything_dropped":
        assert (judged == -1).all()
        return
    kept = judged >= 0
    torch.testing.assert_close(judged[kept], numbers[f"{prefix}.labels_kept"])
    torch.testing.assert_close(output.logits[kept], numbers[f"{prefix}.fused_logits"], **LOGITS)
    torch.testing.assert_close(total, numbers[f"{prefix}.loss"], **LOGITS)
    kind = "grad_q_detached" if detach and f"{prefix}.grad_q_detached.encoder_1.lin.weight" in numbers else "grad"
    for name, value in w.items():
        torch.testing.assert_close(value.grad, numbers[f"{prefix}.{kind}.{name}"], **GRADIENTS)


@pytest.mark.parametrize(("base", "sensitivity"), [(0.5, 0.5), (0.4, 0.5), (0.3, 0.9), (0.9, 0.9)])
def test_opm_rates_are_those_of_the_published_table(base, sensitivity):
    numbers = Published("balancing_opm")
    part = OPM(("1", "2"), 5, base=base, sensitivity=sensitivity)
    rates = torch.stack([part.drop_rates(scores) for scores in numbers["table.scores"]])
    torch.testing.assert_close(rates, numbers[f"table.q_base{base}_lambda{sensitivity}"], **LOGITS)


def test_opm_compares_with_the_mean_of_the_others():
    rates = OPM(("text", "audio", "visual"), 5, base=0.4).drop_rates(torch.tensor([3.0, 1.0, 2.0]))
    torch.testing.assert_close(rates, torch.tensor([0.4 * (1 + 0.5 * math.tanh(1)), 0.0, 0.0]))


@pytest.mark.parametrize("run", ["two", "two_saturated", "three", "three_clamped"])
def test_agm_computes_the_published_numbers(run):
    numbers = Published("balancing_agm")
    modalities = ("audio", "visual", "text")[: 2 if run.startswith("two") else 3]
    part = AGM(modalities, 5, alpha=float(numbers[f"{run}.alpha"]))
    steps = len({key.split(".")[1] for key in numbers if key.startswith(f"{run}.step")})
    batches = len({key.split(".")[1] for key in numbers if key.startswith(f"{run}.batch")})
    if run == "two_saturated":
        part.running.copy_(torch.tensor([0.9, 1.3]))
        part.steps.fill_(2)
    if run == "three_clamped":
        part.running.copy_(torch.tensor([0.1, 5.0, 0.1]))
        part.steps.fill_(batches)
    for step in range(steps):
        prefix, data = f"{run}.step{step}", numbers.under(f"{run}.batch{step % batches}")
        w = trainable(numbers.under(f"{prefix}.weight"))

        def model(batch, w=w):
            seen = [linear(batch.features[m], w, f"{m}_encoder.lin").tanh() for m in modalities]
            return Output(linear(linear(torch.cat(seen, -1), w, "mm_encoder.lin").tanh(), w, "head.fc"), {}, {})

        batch = tiny(modalities, {m: data[m] for m in modalities}, data["label"])
        output = part(model, batch)
        torch.testing.assert_close(output.logits, numbers[f"{prefix}.out"], **LOGITS)
        loss = F.cross_entropy(output.logits, data["label"])
        torch.testing.assert_close(loss, numbers[f"{prefix}.loss"], **LOGITS)
        loss.backward()
        for i, m in enumerate(modalities):
            rate, wanted = part.rates(output)[m], numbers[f"{prefix}.coeff_{m[0]}"].float()
            torch.testing.assert_close(rate, wanted, rtol=1e-4, atol=1e-6)
            wanted = numbers[f"{prefix}.running_score_{m[0]}_after"].float()
            torch.testing.assert_close(part.running[i], wanted, rtol=1e-5, atol=1e-6)
        for name, value in w.items():
            tolerance = {"rtol": 1e-4, "atol": 2e-5} if run in ("two_saturated", "three_clamped") else GRADIENTS
            torch.testing.assert_close(value.grad, numbers[f"{prefix}.grad.{name}"], **tolerance)


def tiny(modalities, features, labels):
    """A batch of one dialogue with given features."""
    dialogue = conversations([len(labels)], widths={m: features[m].shape[-1] for m in modalities})
    batch = Corpus(dialogue).batch([0])
    batch.features, batch.labels = features, labels
    return batch


@pytest.mark.parametrize("count", [2, 3, 4])
def test_agm_shares_add_up_to_the_whole(count):
    torch.manual_seed(0)
    modalities = ("text", "audio", "visual", "gesture")[:count]
    part = AGM(modalities, 5)
    seen = []

    def model(batch):
        seen.append(batch)
        return Output(torch.stack([*batch.features.values()]).sum(0).sin(), {}, {})

    batch = tiny(modalities, {m: torch.randn(4, 5) for m in modalities}, torch.tensor([0, 1, -1, 2]))
    output = part(model, batch)
    assert len(seen) == 2**count - 1
    torch.testing.assert_close(output.logits, torch.stack([*batch.features.values()]).sum(0).sin())


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("case", OGM_CASES)
def test_pmr_computes_the_published_numbers(case, alpha):
    numbers = Published("balancing_pmr")
    labels = numbers["input.label"]
    modalities = ("audio", "visual")
    w, features, _, output = audio_visual(numbers, case)
    with torch.no_grad():
        sample = [
            (
                {m: linear(numbers[f"prototype_batch{i}.{m}"], w, f"{m}_net").tanh() for m in modalities},
                numbers[f"prototype_batch{i}.label"],
            )
            for i in range(2)
        ]
    part = PMR(modalities, 6, alpha=alpha, epochs=51)
    part.on_epoch_start(0, lambda count: sample)
    for m in modalities:
        torch.testing.assert_close(part.prototypes[m], numbers[f"{case}.prototypes_first.{m}"], **LOGITS)
        part.prototypes[m].copy_(numbers[f"old_prototypes.{m}"])
    part.on_epoch_start(1, lambda count: sample)
    for m in modalities:
        torch.testing.assert_close(part.prototypes[m], numbers[f"{case}.prototypes_first.{m}"], **LOGITS)
        part.prototypes[m].copy_(numbers[f"old_prototypes.{m}"])
    part.on_epoch_start(2, lambda count: sample)
    for m in modalities:
        torch.testing.assert_close(part.prototypes[m], numbers[f"{case}.prototypes_momentum.{m}"], **LOGITS)
    part.on_epoch_start(0, lambda count: sample)
    for m in modalities:
        torch.testing.assert_close(part.similarity(m, features[m]), numbers[f"{case}.{m}_sim"], **LOGITS)
    total = part.total_loss(F.cross_entropy(output.logits, labels), output, labels)
    for m, theirs in (("audio", "beta"), ("visual", "lam")):
        assert float(part.rates(output)[m]) == float(numbers[f"{case}.alpha{alpha}.{theirs}"])
    torch.testing.assert_close(total, numbers[f"{case}.alpha{alpha}.loss"], **LOGITS)
    total.backward()
    for name, value in w.items():
        torch.testing.assert_close(value.grad, numbers[f"{case}.alpha{alpha}.grad.{name}"], **GRADIENTS)
    part.on_epoch_start(51, lambda count: sample)
    assert float(part.total_loss(torch.tensor(2.0), output, labels)) == 2.0


def test_pmr_lives_with_a_class_that_the_sample_lacks():
    x = torch.randn(4, 3, generator=torch.manual_seed(0), requires_grad=True)
    features = {"text": x, "audio": 2 * x}
    part = PMR(("text", "audio"), 3)
    part.on_epoch_start(0, lambda count: [({m: f.detach() for m, f in features.items()}, torch.tensor([0, 1, -1, 0]))])
    output = Output(torch.zeros(4, 3), {}, features)
    with_absent = part.total_loss(torch.zeros(()), output, torch.tensor([0, 1, 2, -1]))
    without = part.total_loss(torch.zeros(()), output, torch.tensor([0, 1, -1, -1]))
    with_absent.backward()
    with_absent, without = with_absent.detach(), without.detach()
    assert x.grad.isfinite().all()
    assert float(with_absent) == float(without) > 0
    kept = part.prototypes["text"].clone()
    part.on_epoch_start(2, lambda count: [({m: f.detach() for m, f in features.items()}, torch.full((4,), 2))])
    torch.testing.assert_close(part.prototypes["text"][:2], kept[:2])
    torch.testing.assert_close(part.prototypes["text"][2], x.detach().mean(0))
    assert part.known.all()


PARETO_CASES = [f"audio_{a}_visual_{v}" for a in ("agree", "conflict") for v in ("agree", "conflict")]


@pytest.mark.parametrize("case", PARETO_CASES)
def test_mmpareto_computes_the_published_numbers(case):
    numbers = Published("balancing_mmpareto")
    labels = numbers["input.label"]
    w = trainable(numbers.under(f"{case}.weight"))
    features = {
        m: linear(linear(numbers[f"input.{m}"], w, f"{m}_net.layer1").tanh(), w, f"{m}_net.layer2").tanh()
        for m in ("audio", "visual")
    }
    logits = linear(torch.cat([*features.values()], -1), w, "head")
    heads = {m: linear(features[m], w, f"head_{h}") for m, h in (("audio", "audio"), ("visual", "video"))}
    owned = {m: [v for name, v in w.items() if name.startswith(f"{m}_net")] for m in features}
    part = MMPareto(("audio", "visual"), 5)
    output = Output(logits, heads, features)
    part.backward(F.cross_entropy(logits, labels), output, labels, owned)
    for m in features:
        wanted = numbers[f"{case}.{m}_weights"][0].float()
        torch.testing.assert_close(part.rates(output)[m], wanted, rtol=1e-4, atol=1e-5)
    for name, value in w.items():
        torch.testing.assert_close(value.grad, numbers[f"{case}.grad_final.{name}"], **GRADIENTS)


def test_mmpareto_weights_have_the_smallest_norm():
    numbers = Published("balancing_mmpareto")
    part = MMPareto(("audio", "visual"), 5)
    for g, u, wanted in zip(*(numbers[f"solver.{k}"] for k in ("vector1", "vector2", "weights")), strict=True):
        if float(g @ u) <= 0 and float(g.norm() * u.norm()) > 0:
            torch.testing.assert_close(torch.stack(part.weights(g, u)).double(), wanted, rtol=1e-4, atol=1e-5)


def test_mmpareto_goes_on_where_one_gradient_is_zero():
    first, second = MMPareto(("audio", "visual"), 5).weights(torch.zeros(3), torch.ones(3))
    assert float(first) == float(second) == 0.5


# --------------------------------------------------------------------------------------------- in a model, as trained

HEADS = {
    "project": {"encoder": {"name": "linear", "out_width": 8}},
    "judge": {"head": {"name": "linear", "dropout": 0.0}},
    "vote": {"fusion": "logit_sum"},
}
FUSED = {
    "project": {"encoder": {"name": "linear", "out_width": 8}},
    "join": {"fusion": "concat"},
    "judge": {"head": {"name": "linear", "dropout": 0.0}},
}
BARE = {"join": {"fusion": "concat"}, "judge": {"head": {"name": "linear", "dropout": 0.0}}}
NEED_HEADS = {"mmpareto", "g_blending"}
NEED_OWN = {"ogm_ge", "pmr", "mmpareto"}


def setting(name, modalities=("text", "audio", "visual"), stages=None, labels=None, extra=0, **settings):
    """A strategy, a model and a batch."""
    dialogues = conversations([7, 3, 5, 2, 6], classes=CLASSES, widths={m: 4 + i for i, m in enumerate(modalities)})
    stages = stages or (HEADS if name in NEED_HEADS else FUSED)
    parsed = recipe.Recipe.model_validate({"title": "t", "model": stages})
    plan = filling.fill(recipe.RecipeFile("t", parsed), dialogues[0].widths)
    model = assemble(plan, Facts(dialogues[0].widths, 3, CLASSES, (1,) * CLASSES)).train()
    corpus = Corpus(dialogues)
    batch = corpus.batch(corpus.index(range(5), Shape(utterances=23 + extra)))
    if labels is not None:
        batch.labels = labels
    card = registry.find("balancing", name)
    facts = {"modalities": model.modalities, "classes": CLASSES}
    return registry.build(card, {**EAGER.get(name, {}), **settings}, facts), model, batch


def collector(model, batch):
    def collect(count):
        with torch.no_grad():
            return [(model.encode(batch).states, batch.labels)] * count

    return collect


def step(part, model, batch, epoch=0):
    """One step of the training loop."""
    part.on_epoch_start(epoch, collector(model, batch))
    model.zero_grad()
    whole = Step(model, part, NLL((1,) * CLASSES))
    total, output, labels = whole(batch)
    whole.backward(total, output, labels)
    return output, total


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("modalities", [("text", "audio"), ("text", "audio", "visual")], ids=len)
@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_modulates_and_tells_its_rates(name, modalities):
    torch.manual_seed(1)
    part, model, batch = setting(name, modalities)
    output, _ = step(part, model, batch)
    changed = gradients(model)
    step(Balancing(modalities, CLASSES), model, batch)
    assert all(g.isfinite().all() for g in changed)
    assert any(not torch.allclose(g, plain) for g, plain in zip(changed, gradients(model), strict=True))
    rates = part.rates(output)
    assert set(rates) - {"fused"} == set(modalities)
    assert all(rate.shape == () and rate.isfinite() for rate in rates.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_leaves_evaluation_alone(name):
    part, model, batch = setting(name)
    model.eval()
    before = model(batch).logits
    model.train()
    step(part, model, batch)
    model.eval()
    torch.testing.assert_close(model(batch).logits, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_modality_is_refused(name):
    with pytest.raises(MerZooError, match=f"balancing/{name}: one modality alone cannot be balanced"):
        registry.build(registry.find("balancing", name), {}, {"modalities": ("text",), "classes": CLASSES})


@pytest.mark.parametrize("name", sorted(NEED_OWN))
def test_a_strategy_that_would_touch_no_parameter_raises(name):
    stages = {k: v for k, v in HEADS.items() if k != "project"} if name in NEED_HEADS else BARE
    part, model, batch = setting(name, stages=stages)
    with pytest.raises(MerZooError, match="no parameters that belong to text or to audio or to visual alone"):
        step(part, model, batch)


@pytest.mark.parametrize("name", sorted(NEED_HEADS))
def test_a_strategy_that_needs_heads_says_so(name):
    part, model, batch = setting(name, stages=FUSED)
    with pytest.raises(MerZooError, match=r"no head for text or for audio or for visual alone.*logit_sum"):
        step(part, model, batch)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_labels_is_harmless(name):
    part, model, batch = setting(name, labels=torch.full((23,), -1))
    output, total = step(part, model, batch)
    assert total.isfinite()
    assert output.logits.isfinite().all()
    assert all(g.isfinite().all() for g in gradients(model))
    assert all(rate.isfinite() for rate in part.rates(output).values())


@pytest.mark.parametrize("name", NAMES)
def test_absent_classes_are_harmless(name):
    part, model, batch = setting(name, labels=torch.full((23,), 4))
    for epoch in range(3):
        step(part, model, batch, epoch)
        assert all(g.isfinite().all() for g in gradients(model))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"modality_dropout", "adaptive_dropout", "opm"}))
def test_rows_of_no_dialogue_change_nothing(name):
    settings = {"noise": False} if name == "ogm_ge" else {}
    results = []
    for extra in (0, 5):
        part, model, batch = setting(name, extra=extra, **settings)
        step(part, model, batch)
        results.append(gradients(model))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["modality_dropout", "adaptive_dropout", "opm"])
def test_rows_of_no_dialogue_stay_finite_where_features_are_dropped(name):
    part, model, batch = setting(name, extra=5)
    output, _ = step(part, model, batch)
    assert output.logits.isfinite().all()
    assert all(g.isfinite().all() for g in gradients(model))


def test_modality_dropout_drops_whole_dialogues_at_its_rate():
    torch.manual_seed(0)
    part, _, batch = setting("modality_dropout", ("text", "audio"), rate={"text": 0.5})
    ones = {m: torch.ones(len(batch), 2) for m in ("text", "audio")}
    flow = Flow(batch, ones, batch.layout)
    seen = torch.stack([part.on_features(None, flow).states["text"][:, 0] for _ in range(2000)])
    torch.testing.assert_close(seen.unique(), torch.tensor([0, 1 / 0.75]))
    assert (seen[:, :7] == seen[:, :1]).all()  # the seven utterances of the first dialogue share a fate
    assert float((seen == 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    kept = part.on_features(None, flow).states["audio"]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.75))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("modality_dropout", {"rate": 0.0}, "To drop nothing"),
        ("modality_dropout", {"rate": 1.0}, "from 0 to below 1"),
        ("modality_dropout", {"rate": {"txt": 0.5}}, "Did you mean 'text'"),
        ("ogm_ge", {"alpha": 0}, "slows nothing down"),
        ("agm", {"alpha": 0}, "changes nothing"),
        ("pmr", {"alpha": -1}, "adds nothing"),
        ("g_blending", {"held_out": 1.0}, "between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, settings, message):
    with pytest.raises(MerZooError, match=message):
        registry.build(registry.find("balancing", name), settings, {"modalities": ("text", "audio"), "classes": 6})


def test_agm_refuses_five_modalities():
    with pytest.raises(MerZooError, match="31 forward passes per step; at most 4"):
        AGM(tuple("abcde"), 6)


def test_opm_does_not_judge_what_lost_everything():
    part, model, batch = setting("opm")
    part.draw = lambda rates, n: (torch.arange(n).unsqueeze(-1).expand(-1, 3) > 0, torch.tensor(True))
    output = part(model, batch)
    assert part.on_labels(batch.labels, output).tolist() == [-1, *batch.labels[1:].tolist()]


# ---------------------------------------------------------------------------------------------------- blending losses


def test_g_blending_holds_out_the_same_dialogues_however_they_are_batched():
    part = GBlending(("text", "audio"), CLASSES, held_out=0.3)
    dialogues = conversations([3, 9, 2, 5] * 25, widths={"text": 3, "audio": 4})
    corpus = Corpus(dialogues)
    alone = torch.cat([part.is_held_out(corpus.batch([i])) for i in range(100)])
    order = torch.randperm(100, generator=torch.manual_seed(0)).tolist()
    index = corpus.index(order, Shape(utterances=corpus.starts[-1] + 3, longest=12))
    together = part.is_held_out(corpus.batch(index))
    assert torch.equal(alone[index.utterances[:-3]], together[:-3])
    assert not together[-3:].any()
    assert 0.15 < float(alone.float().mean()) < 0.45


def test_g_blending_never_trains_on_held_out_labels():
    part, model, batch = setting("g_blending")
    held = part.is_held_out(batch)
    assert 0 < int(held.sum()) < len(batch)
    step(part, model, batch)
    before = gradients(model)
    batch.labels = torch.where(held, (batch.labels + 1) % CLASSES, batch.labels)
    step(part, model, batch)
    for one, other in zip(before, gradients(model), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_g_blending_weighs_by_generalisation_over_overfitting():
    part, model, batch = setting("g_blending", interval=2)
    tables = []
    for epoch in range(4):
        output, _ = step(part, model, batch, epoch)
        tables.append(part.sums / part.counts)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad
    # Compared are epochs 0 and 2, at the start of epoch 3.
    change = tables[2] - tables[0]
    value = (change[1] / (change[1] - change[0]).abs().clamp(min=0.01) ** 2).abs()
    torch.testing.assert_close(torch.stack([*part.rates(output).values()]), value / value.sum(), rtol=1e-4, atol=1e-6)
    assert float(part.weights.sum()) == pytest.approx(1)


def test_g_blending_says_when_nothing_was_held_out():
    part, model, batch = setting("g_blending", held_out=1e-6)
    step(part, model, batch, 0)
    with pytest.raises(MerZooError, match="held out"):
        step(part, model, batch, 1)
