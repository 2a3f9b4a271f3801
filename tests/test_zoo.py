"""Every model of the zoo: as large as published, and sound on any data in the form that ships as the default."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from mer_zoo.batch.index import Shape
from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.splits import Split
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.step import Step, companions
from mer_zoo.parts.encoder.dialogue_rnn import DialogueRNN
from mer_zoo.parts.encoder.party_gru import PartyGRU
from mer_zoo.parts.encoder.speaker_embedding import SpeakerEmbedding
from mer_zoo.training.engines import why_not_stacked
from mer_zoo.training.loop import train
from mer_zoo.training.task import Task

WIDTHS = {"text": 12, "audio": 8, "visual": 6}
MODELS = [name for name in recipe.names() if "/" not in name and recipe.read(name).recipe.learner is None]
PUBLISHED = {  # parameters that the published implementations train, as counted by running them
    "cogmen/iemocap": 26_848_602,
    "corect/iemocap": 17_703_074,
    "dag_erc/iemocap": 6_213_910 - 4 * 301,  # the attention's query half and bias, which cancel
    "dag_erc/meld": 3_505_809 - 2 * 301,
    "dialoguernn/iemocap": 8_880_406,
    "dialoguernn/meld": 2_666_607,
    "graphsmile/iemocap": 14_313_835,
    "graphsmile/meld": 6_731_372,
    "m3net/iemocap": 4_178_498,
    "m3net/meld": 10_683_458,
    "mm_dfn/iemocap": 1_556_506,
    "mm_dfn/meld": 1_721_007,
    "mmgcn/iemocap": 2_194_506,
    "mmgcn/meld": 2_040_407,
    "sdt/iemocap": 79_687_704,
    "sdt/meld": 68_949_020,
}


def talk(length, speakers=2, seed=0, widths=WIDTHS, **more):
    draw = np.random.default_rng(seed)
    return Conversation(
        f"talk {seed}",
        tuple(f"S{turn % speakers}" for turn in range(length)),
        draw.integers(6, size=length),
        {m: draw.normal(size=(length, width)) for m, width in widths.items()},
        **more,
    )


def made(name, modalities=tuple(WIDTHS), speakers=2, changes=()):
    widths = {m: WIDTHS[m] for m in modalities}
    plan = filling.fill(recipe.read(name, [f"modalities=[{','.join(modalities)}]", *changes]), widths)
    facts = Facts(widths, speakers, 6, (1,) * 6)
    return assemble(plan, facts, seed=1), companions(plan, facts)


def judged(model, dialogues, shape=None):
    corpus = Corpus(dialogues, model.builder, model.views)
    shape = shape and corpus.shape(range(len(dialogues))) | shape(corpus)
    with torch.no_grad():
        return model.eval()(corpus.batch(corpus.index(range(len(dialogues)), shape=shape))).logits


def larger(corpus):
    """A shape with room for more dialogues, utterances, turns and edges than there are."""
    edges = corpus.shape(range(3)).edges
    return Shape(5, 23, 11, {name: count and count + 7 for name, count in edges.items()})


STAGED = [name for name in recipe.names() if recipe.read(name).recipe.learner is None]


@pytest.mark.parametrize("name", STAGED)
def test_the_stages_of_every_recipe_fit(name):
    file = recipe.read(name)
    asked = file.recipe.modalities
    plan = filling.fill(file, asked if isinstance(asked, dict) else WIDTHS)
    with torch.device("meta"):
        Model(plan, Facts(plan.modalities, 3, 6, (1,) * 6))


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_parameters_as_published(name):
    file = recipe.read(name)
    plan = filling.fill(file, file.recipe.modalities)
    speakers, classes = (9, 7) if name.endswith("meld") else (2, 6)
    with torch.device("meta"):
        model = Model(plan, Facts(plan.modalities, speakers, classes, (1,) * classes))
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_dialogue_is_judged_alike_alone_and_beside_others(name):
    model, _ = made(name, speakers=3)
    dialogues = [talk(5, seed=1), talk(9, 3, seed=2), talk(1, seed=3)]
    together = judged(model, dialogues, larger)[:15]
    alone = torch.cat([judged(model, [dialogue]) for dialogue in dialogues])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", MODELS)
def test_any_modalities_learn(name):
    for count in (1, 2, 3):
        for chosen in itertools.combinations(WIDTHS, count):
            model, others = made(name, chosen)
            dialogues = [talk(4, widths={m: WIDTHS[m] for m in chosen})]
            step = Step(model, *others)
            step.backward(*step(Corpus(dialogues, model.builder, model.views).batch([0])))
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
            assert sum(p.grad is not None and bool(p.grad.any()) for p in model.parameters()) > 1


@pytest.mark.parametrize("name", MODELS)
def test_long_dialogues_and_thirty_speakers(name):
    model, _ = made(name, speakers=30)
    logits = judged(model, [talk(130, 30), talk(1, seed=1)])
    assert logits.shape == (131, 6)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_more_speakers_than_the_model_was_made_for(name):
    model, _ = made(name)
    crowd, pair = talk(11, 5), talk(9, 2, seed=1)
    together = judged(model, [crowd, pair])
    assert together.isfinite().all()
    torch.testing.assert_close(together[11:], judged(model, [pair]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "made_for",
    [
        partial(SpeakerEmbedding, 12),
        partial(SpeakerEmbedding, 12, padding_row=True),
        partial(DialogueRNN, 12),
        partial(DialogueRNN, 12, listener=True),
        partial(PartyGRU, 12),
    ],
)
def test_further_speakers_share_the_last_ones_place(made_for):
    part = made_for(2).eval()
    many = Conversation("many", tuple("ABCADC"), [0] * 6, talk(6).features)
    batches = [Corpus([each]).batch([0]) for each in (many, replace(many, speakers=tuple("ABBABB")))]
    one, other = (part(batch.features["text"], batch.layout) for batch in batches)
    assert one.equal(other)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_masked_changes_nothing(name):
    model, _ = made(name)
    for masked in WIDTHS:
        first = talk(4, present={masked: [True, False, True, False]})
        features = {m: x.copy() for m, x in first.features.items()}
        features[masked][1] = 99.0
        second = replace(first, id="other", features=features)
        assert judged(model, [first]).equal(judged(model, [second]))


@pytest.mark.parametrize("name", MODELS)
def test_who_the_speakers_are_does_not_matter(name):
    """So dialogues of people that training never saw are judged as those of known ones."""
    model, _ = made(name, speakers=3)
    known = talk(7, 3)
    strangers = replace(known, id="strangers", speakers=tuple(f"nobody {speaker}" for speaker in known.speakers))
    assert judged(model, [known]).equal(judged(model, [strangers]))


def small_task(name):
    conversations = [talk(4 + seed % 3, seed=seed) for seed in range(6)]
    named = [replace(each, id=f"d{number}") for number, each in enumerate(conversations)]
    split = Split(*(tuple(each.id for each in some) for some in (named[:4], named[4:5], named[5:])))
    data = Dataset("talks", named, tuple("abcdef"), {})
    changes = ["modalities=all", "training.epochs=1", "training.dialogues_per_batch=2"]
    return Task(name, filling.fill(recipe.read(name, changes), WIDTHS), data, split)


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_repeats(name):
    task = small_task(name)
    first, again = (train(task, 5) for _ in range(2))
    assert first.result.history[0]["train_loss"] == again.result.history[0]["train_loss"]
    for one, other in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("name", MODELS)
def test_a_stacked_model_judges_as_it_does_alone(name):
    """Or its seeds are trained one by one, which a stage says."""
    models = [made(name)[0].eval() for _ in range(2)]
    with torch.no_grad():
        for p in models[1].parameters():
            p.mul_(1.1)
    if not all(stage.stackable for stage in models[0].stages.values()):
        assert "cannot be stacked" in (why_not_stacked(small_task(name)) or "")
        return
    batch = Corpus([talk(5), talk(3, seed=1)], models[0].builder, models[0].views).batch([0, 1])

    def one(*state):
        return torch.func.functional_call(models[0], state, (batch,)).logits

    with torch.no_grad():
        together = torch.func.vmap(one)(*torch.func.stack_module_state(models))
        for logits, model in zip(together, models, strict=True):
            torch.testing.assert_close(logits, model(batch).logits, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("strategy", ["adaptive_dropout", "modality_dropout", "ogm_ge"])
def test_balancing_sees_modalities_alone_where_a_model_makes_states_beside_them(strategy):
    model, others = made("graphcfc", changes=[f"balancing={strategy}"])
    step = Step(model, *others)
    total, output, _ = step(Corpus([talk(5)], model.builder, model.views).batch([0]))
    assert total.isfinite()
    assert set(output.features) == set(WIDTHS)
    assert set(output.modality_logits) == {*WIDTHS, "common"}
