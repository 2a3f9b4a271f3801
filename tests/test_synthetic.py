"""The synthetic dialogues: the ceiling is exact, every knob does what it says, and bad settings are named."""

import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mer_zoo.data import synthetic as module
from mer_zoo.data.ceiling import VIEWS, ceiling, ceilings, posterior
from mer_zoo.data.conversation import MODALITIES, Conversation, Dataset
from mer_zoo.data.synthetic import synthetic
from mer_zoo.errors import MerZooError

TINY = {"dialogues": (1, 1, 4), "emotions": ("sad", "happy"), "widths": (4, 4, 4)}
LARGE = {"dialogues": (1, 1, 150)}


def enumerate_everything(model, dialogue, modalities):
    """P(y_t | x, s) by summing over every course of moods, emotions and distractor: the definition, word for word."""
    total = joint(model, dialogue, modalities)
    return total / total.sum(1, keepdims=True)


def joint(model, dialogue, modalities):
    """P(y_t, x | s) up to a factor that depends on x alone."""
    emotions, length = model.emotions, len(dialogue)
    voices = sorted(set(dialogue.speakers))
    stay = lambda same, p: p * same + (1 - p) / emotions  # noqa: E731
    density = np.ones((length, emotions, emotions))
    for t, y, z in np.ndindex(density.shape):
        for m in modalities:
            if not dialogue.present.get(m, np.ones(length, bool))[t]:
                continue
            gap = dialogue.features[m][t] - model.means[m][y] - model.distractor * model.means[m][z]
            density[t, y, z] *= np.exp(-0.5 * gap @ gap)
    courses = list(itertools.product(range(emotions), repeat=length))
    total = np.zeros((length, emotions))
    for moods in itertools.product(range(emotions), repeat=len(voices)):
        for course in courses:
            chance, last, other = emotions ** -len(voices), dict(zip(voices, moods, strict=True)), None
            for t, (who, y) in enumerate(zip(dialogue.speakers, course, strict=True)):
                before = [s for s in dialogue.speakers[:t] if s != who]
                other = last[before[-1]] if before else None
                if other is None:
                    chance *= stay(y == last[who], model.inertia)
                else:
                    free = 1 - model.inertia - model.contagion
                    chance *= model.inertia * (y == last[who]) + model.contagion * (y == other) + free / emotions
                last[who] = y
            weight = 0.0
            for states in courses:  # the distractor's courses have the same form
                term = 1 / emotions
                for t, z in enumerate(states):
                    term *= density[t, course[t], z] * (stay(z == states[t - 1], model.persistence) if t else 1)
                weight += term
            for t, y in enumerate(course):
                total[t, y] += chance * weight
    return total


def enumerate_view(view, model, dialogue):
    """The same for a rule that sees less, or believes something else."""
    if view == "full":
        return enumerate_everything(model, dialogue, MODALITIES)
    if view == "distractor independent":
        return enumerate_everything(replace(model, persistence=0.0), dialogue, MODALITIES)
    if view == "own speaker only":
        found = np.zeros((len(dialogue), model.emotions))
        for t, who in enumerate(dialogue.speakers):
            theirs = np.array([s == who for s in dialogue.speakers])
            heard = {m: theirs & dialogue.present.get(m, theirs) for m in MODALITIES}
            found[t] = enumerate_everything(model, replace(dialogue, present=heard), MODALITIES)[t]
        return found
    if view == "one utterance":
        return np.concatenate([enumerate_everything(model, one, MODALITIES) for one in utterances_of(dialogue)])
    total = np.zeros((len(dialogue), model.emotions))
    for turns in itertools.product(range(model.speakers), repeat=len(dialogue)):
        chance = 1 / model.speakers
        for before, who in itertools.pairwise(turns):
            chance *= model.hold if before == who else (1 - model.hold) / (model.speakers - 1)
        total += chance * joint(model, replace(dialogue, speakers=turns), MODALITIES)
    return total / total.sum(1, keepdims=True)


def utterances_of(dialogue):
    for t in range(len(dialogue)):
        cut = slice(t, t + 1)
        yield Conversation(
            "one",
            dialogue.speakers[cut],
            dialogue.labels[cut],
            {m: x[cut] for m, x in dialogue.features.items()},
            {m: x[cut] for m, x in dialogue.present.items()},
        )


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("speakers", [2, 3])
def test_every_view_equals_enumeration_with_modalities_absent_too(view, speakers):
    settings = {"hold": 0.3, "inertia": 0.6, "contagion": 0.25, "distractor": 0.8, "persistence": 0.8, "signal": 2}
    settings |= {"failure": 0.5, "fails": ("text", "visual"), "utterances": (1, 4), "seed": 5}
    data = synthetic(**(TINY | {"dialogues": (1, 1, 6)}), speakers=speakers, **settings)
    test = data.select(data.splits["test"])
    assert {bool(dialogue.present) for dialogue in test} == {True, False}
    assert {len(dialogue) for dialogue in test} >= {1, 4}
    found = posterior(data.model, test, view=view)
    for dialogue, chances in zip(test, found, strict=True):
        np.testing.assert_allclose(chances, enumerate_view(view, data.model, dialogue), rtol=1e-9, atol=1e-12)


def test_ceilings_are_the_expected_accuracy_of_what_each_rule_chooses():
    data = synthetic(**(TINY | {"dialogues": (1, 1, 3)}), utterances=(2, 4))
    truth = {d.id: enumerate_view("full", data.model, d) for d in data}
    for view, accuracy in ceilings(data).items():
        test = data.select(data.splits["test"])
        chosen = {d.id: enumerate_view(view, data.model, d).argmax(1) for d in test}
        right = np.concatenate([truth[d.id][np.arange(len(d)), chosen[d.id]] for d in test])
        assert accuracy == pytest.approx(right.mean(), rel=1e-9)
    plain = Dataset("plain", data.conversations, data.label_names, data.splits)
    assert ceilings(plain) == {}


def test_without_contagion_and_distractor_the_others_say_nothing():
    found = ceilings(synthetic(**LARGE, contagion=0, distractor=0))
    assert found["own speaker only"] == pytest.approx(found["full"], abs=1e-12)
    assert found["distractor independent"] == pytest.approx(found["full"], abs=1e-12)
    assert found["blind to speakers"] < found["full"] - 0.1


def test_a_failed_modality_is_absent_in_its_share_of_the_dialogues_and_nothing_else_changes():
    sizes = {"dialogues": (20, 10, 300), "utterances": (2, 4)}
    whole = synthetic(**sizes)
    for share in (0.3, 1.0):
        data = synthetic(**sizes, failure=share, fails=["audio", "text"])
        assert data.fingerprint != whole.fingerprint
        failed = [bool(d.present) for d in data]
        assert not any(failed[:30])  # only in test
        assert np.mean(failed[30:]) == pytest.approx(share, abs=0.08)
        for one, other, gone in zip(data, whole, failed, strict=True):
            assert (one.speakers, one.labels.tolist()) == (other.speakers, other.labels.tolist())
            assert np.array_equal(one.features["visual"], other.features["visual"])
            for m in ("audio", "text"):
                assert np.array_equal(one.features[m], 0 * other.features[m] if gone else other.features[m])
                assert not gone or not one.present[m].any()
    everywhere = synthetic(**sizes, failure=1.0, fails_in=["train", "validation"])
    assert [bool(d.present) for d in everywhere] == [True] * 30 + [False] * 300


def test_the_ceiling_with_a_failed_modality_is_that_of_the_others():
    sizes = {"dialogues": (1, 1, 40)}
    failed = posterior((data := synthetic(**sizes, failure=1.0)).model, data.select(data.splits["test"]))
    without = posterior((data := synthetic(**sizes)).model, data.select(data.splits["test"]), modalities=MODALITIES[1:])
    for one, other in zip(failed, without, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("speakers", [2, 3])
@pytest.mark.parametrize("modalities", [("text", "audio", "visual"), ("audio",)])
def test_forward_backward_equals_enumeration(speakers, modalities):
    data = synthetic(**TINY, speakers=speakers, utterances=(1, 6), hold=0.4, inertia=0.5, contagion=0.3, seed=speakers)
    found = posterior(data.model, data.conversations, modalities=modalities)
    assert {len(set(dialogue.speakers)) for dialogue in data} >= {2, speakers}
    for dialogue, chances in zip(data, found, strict=True):
        np.testing.assert_allclose(
            chances, enumerate_everything(data.model, dialogue, modalities), rtol=1e-9, atol=1e-12
        )


def test_enumeration_with_three_emotions_and_a_speaker_who_never_stops():
    data = synthetic(dialogues=(1, 1, 1), emotions=("a", "b", "c"), utterances=(4, 4), widths=(5, 5, 5))
    drawn = data.conversations[0]
    for speakers in (("A", "A", "A", "A"), ("A", "A", "B", "B"), ("A", "B", "A", "C")):
        dialogue = Conversation("d", speakers, drawn.labels, drawn.features)
        expected = enumerate_everything(data.model, dialogue, ("text",))
        np.testing.assert_allclose(posterior(data.model, [dialogue], modalities=["text"])[0], expected, rtol=1e-9)


def test_no_context_is_the_posterior_of_each_utterance_as_a_dialogue_of_its_own():
    data = synthetic(**TINY, utterances=(3, 5))
    dialogue = data.conversations[-1]
    alone = posterior(data.model, [dialogue], view="one utterance")[0]
    for t, one in enumerate(utterances_of(dialogue)):
        np.testing.assert_allclose(alone[t], enumerate_everything(data.model, one, dialogue.features)[0], rtol=1e-9)


def test_batches_do_not_mix_dialogues(monkeypatch):
    data = synthetic(dialogues=(1, 1, 6), utterances=(1, 9), speakers=3)
    together = posterior(data.model, data.conversations)
    monkeypatch.setattr("mer_zoo.data.ceiling.CELLS", 1)
    for one, other in zip(together, posterior(data.model, data.conversations), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_expected_accuracy_is_what_the_optimal_rule_realises():
    data = synthetic(dialogues=(1, 1, 400))
    for view in VIEWS:
        expected, realised = data.bayes(view=view)
        assert abs(expected - realised) < 0.015  # three standard errors, generously


def test_every_structure_of_the_default_is_worth_ten_points():
    data = synthetic()
    found = ceilings(data)
    assert found["full"] == data.ceiling == data.bayes().expected
    assert 0.9 < data.ceiling < 0.95
    for view in VIEWS:
        assert view == "full" or found[view] < data.ceiling - 0.1
    single = {m: data.bayes(modalities=[m]).expected for m in data.widths}
    assert single["text"] > max(single["audio"], single["visual"]) + 0.1
    assert data.ceiling > single["text"] + 0.07


def test_the_page_shows_the_views_of_the_default():
    data, page = synthetic(), Path(__file__).parents[1] / "docs" / "synthetic.md"
    shown = page.read_text("utf-8").split("| view, accuracy in %")[1].splitlines()[2 : 2 + len(VIEWS)]
    for line, view in zip(shown, VIEWS, strict=True):
        found = [data.bayes(modalities=seen, view=view).expected for seen in (None, ["text"], ["audio"], ["visual"])]
        assert line == f"| {view} | {' | '.join(f'{100 * accuracy:.1f}' for accuracy in found)} |"


def test_a_linear_model_on_windows_stays_far_below_those_who_know_the_speakers():
    data = synthetic()

    def windows(split, reach):
        rows = []
        for dialogue in data.select(data.splits[split]):
            padded = np.pad(np.concatenate(list(dialogue.features.values()), axis=1), ((reach, reach), (0, 0)))
            rows.append(np.concatenate([padded[i : i + len(dialogue)] for i in range(2 * reach + 1)], axis=1))
        return np.concatenate(rows), np.concatenate([dialogue.labels for dialogue in data.select(data.splits[split])])

    alone, context = (
        LogisticRegression(C=0.003, max_iter=200).fit(*windows("train", reach)).score(*windows("test", reach))
        for reach in (0, 3)
    )
    found = ceilings(data)
    assert 0.4 < alone < found["one utterance"]
    assert context < found["full"] - 0.3


def test_without_inertia_contagion_and_distractor_context_is_worth_nothing():
    data = synthetic(**LARGE, inertia=0, contagion=0, distractor=0)
    assert data.bayes().expected == pytest.approx(data.bayes(view="one utterance").expected, abs=1e-12)


@pytest.mark.parametrize("knob", ["inertia", "contagion"])
def test_moods_that_last_or_spread_make_context_pay(knob):
    gain = []
    for value in (0.0, 0.4, 0.8):
        data = synthetic(**LARGE, **{"inertia": 0.0, "contagion": 0.0, "distractor": 0.0, knob: value})
        gain.append(data.bayes().expected - data.bayes(view="one utterance").expected)
    assert gain == sorted(gain)
    assert gain[2] > 0.1


def test_a_stronger_distractor_costs_the_utterance_alone_more_than_the_dialogue():
    calm, loud = (synthetic(**LARGE, distractor=d) for d in (0.0, 1.0))
    cost = {v: calm.bayes(view=v).expected - loud.bayes(view=v).expected for v in VIEWS}
    assert cost["one utterance"] > 1.5 * cost["full"] > 0


def test_a_persistent_distractor_can_be_cancelled_from_the_neighbours():
    # emotions without memory: all that neighbours can tell is the distractor
    rates = [synthetic(**LARGE, inertia=0, contagion=0, persistence=p) for p in (0.0, 0.9, 1.0)]
    gain = [data.bayes().expected - data.bayes(view="one utterance").expected for data in rates]
    assert gain[0] == pytest.approx(0, abs=1e-12)
    assert gain[2] > gain[1] + 0.01 > 0.03


def test_more_signal_raises_the_ceiling():
    ceilings = [synthetic(**LARGE, signal=s).ceiling for s in (0.0, 0.8, 1.6, 3.2)]
    assert ceilings == sorted(ceilings)
    assert ceilings[0] == pytest.approx(1 / 6)


def test_dominance_decides_how_much_text_leads():
    lead = []
    for dominance in (0.0, 0.5, 1.0):
        data = synthetic(**LARGE, dominance=dominance)
        text, audio, visual = (data.bayes(modalities=[m]).expected for m in data.widths)
        lead.append(text - max(audio, visual))
    assert lead[0] < 0.03 < lead[1] < lead[2]


def test_complementary_modalities_separate_what_the_others_blur():
    data = synthetic(
        **LARGE, complementarity=1.0, distractor=0.0, signal=4.0, dominance=0.0, inertia=0.0, contagion=0.0
    )
    alone = [data.bayes(modalities=[m]).expected for m in data.widths]
    assert max(alone) < 0.36  # two groups for six emotions: at best one in three
    assert data.ceiling > 0.95


def test_shares_of_the_draw_follow_the_settings():
    data = synthetic(dialogues=(400, 1, 1), hold=0.25, inertia=0.6, contagion=0.0, speakers=3)
    held = np.mean([a == b for dialogue in data for a, b in itertools.pairwise(dialogue.speakers)])
    assert held == pytest.approx(0.25, abs=0.02)
    assert data.max_speakers == 3
    kept = []
    for dialogue in data:
        last = {}
        for who, label in zip(dialogue.speakers, dialogue.labels, strict=True):
            kept += [last[who] == label] if who in last else []
            last[who] = label
    assert np.mean(kept) == pytest.approx(0.6 + 0.4 / 6, abs=0.02)


def test_seeds_repeat_bit_for_bit_and_differ_from_each_other():
    one, two, other = (synthetic(dialogues=(2, 1, 2), seed=s) for s in (3, 3, 4))
    assert (one.ceiling, one.fingerprint) == (two.ceiling, two.fingerprint)
    for a, b in zip(one, two, strict=True):
        assert (a.id, a.speakers, a.labels.tobytes()) == (b.id, b.speakers, b.labels.tobytes())
        assert all(a.features[m].tobytes() == b.features[m].tobytes() for m in a.features)
    assert one.fingerprint != other.fingerprint
    assert not np.array_equal(one.model.means["text"], other.model.means["text"])


def test_a_dialogue_does_not_depend_on_how_many_there_are():
    few, many = synthetic(dialogues=(2, 1, 1)), synthetic(dialogues=(9, 4, 3))
    for dialogue in few:
        assert np.array_equal(dialogue.features["audio"], many[dialogue.id].features["audio"])


CHANGES = {
    "dialogues": (3, 1, 1),
    "utterances": (2, 4),
    "speakers": 2,
    "hold": 0.2,
    "emotions": ("sad", "happy", "calm"),
    "widths": (16, 24, 17),
    "signal": 2.0,
    "dominance": 0.1,
    "complementarity": 0.1,
    "inertia": 0.1,
    "contagion": 0.01,
    "distractor": 0.1,
    "persistence": 0.1,
    "failure": 0.1,
    "fails": ("audio",),
    "fails_in": ("train",),
    "seed": 1,
}


def test_the_fingerprint_knows_every_setting_and_the_version(monkeypatch):
    small = {"dialogues": (2, 1, 1), "utterances": (2, 3)}
    assert set(CHANGES) == set(synthetic.__kwdefaults__)
    seen = {synthetic(**small).fingerprint}
    seen |= {synthetic(**(small | {name: value})).fingerprint for name, value in CHANGES.items()}
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    seen.add(synthetic(**small).fingerprint)
    assert len(seen) == len(CHANGES) + 2


def test_the_fingerprint_does_not_depend_on_how_a_number_is_written():
    plain = synthetic(dialogues=(2, 1, 1), inertia=0, seed=5)
    other = synthetic(dialogues=[2, np.int64(1), 1], inertia=0.0, seed=np.int64(5))
    assert plain.fingerprint == other.fingerprint


def test_extreme_settings_stay_finite():
    data = synthetic(
        dialogues=(1, 1, 8), signal=10, distractor=3, inertia=1, contagion=0, persistence=1, utterances=(60, 60)
    )
    for chances in posterior(data.model, data.conversations):
        assert np.isfinite(chances).all()
    assert data.ceiling == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inertia": 1.2}, "synthetic.inertia: 1.2 is not a number from 0 to 1."),
        ({"hold": "often"}, "synthetic.hold: 'often' is not a number from 0 to 1."),
        ({"signal": -1}, "synthetic.signal: -1 is not a number from 0 to 10."),
        ({"distractor": float("nan")}, "synthetic.distractor: nan is not a number from 0 to 3."),
        ({"inertia": 0.7, "contagion": 0.5}, r"synthetic.contagion: inertia \+ contagion is 1.2"),
        ({"speakers": 1}, "synthetic.speakers: 1 is not a whole number of 2 or more."),
        ({"speakers": 9}, "synthetic.speakers: 9 speakers with 6 emotions have 60,466,176 joint states"),
        ({"seed": 0.5}, "synthetic.seed: 0.5 is not a whole number"),
        ({"dialogues": (1, 2)}, r"synthetic.dialogues: \(1, 2\) is not 3 numbers \(train, validation, test\)."),
        ({"dialogues": (9, 0, 3)}, r"synthetic.dialogues \(validation\): 0 is not a whole number of 1 or more."),
        ({"utterances": (9, 3)}, "synthetic.utterances: fewest and most"),
        ({"widths": (32, 7, 16)}, "synthetic.widths: 7 for audio, but 6 emotions need 8 or more"),
        ({"emotions": ("sad", "sad")}, "synthetic.emotions: sad, sad. Give two or more different names."),
        ({"emotions": "sad"}, "synthetic.emotions: 'sad' is not a list of names."),
        ({"failure": 2}, "synthetic.failure: 2 is not a number from 0 to 1."),
        ({"fails": "text"}, "synthetic.fails: 'text' is not a list of names."),
        ({"fails": ("txt",)}, r"synthetic.fails: no 'txt'\. Did you mean 'text'"),
        ({"fails": MODALITIES}, r"synthetic.fails: no modality would be left\. Leave one out."),
        ({"fails_in": ("tst",)}, r"synthetic.fails_in: no 'tst'\. Did you mean 'test'"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(MerZooError, match=words):
        synthetic(**settings)


def test_bad_questions_are_answered():
    data = synthetic(dialogues=(1, 1, 1), utterances=(2, 3))
    with pytest.raises(MerZooError, match=r"no modality 'txt'\. Did you mean 'text'"):
        data.bayes(modalities=["txt"])
    with pytest.raises(MerZooError, match="no modality given"):
        data.bayes(modalities=[])
    with pytest.raises(MerZooError, match=r"no split 'tset'\. Did you mean 'test'"):
        data.bayes(split="tset")
    with pytest.raises(MerZooError, match=r"no view 'ful'\. Did you mean 'full'"):
        data.bayes(view="ful")
    with pytest.raises(MerZooError, match="no dialogue given"):
        ceiling(data.model, [])
    with pytest.raises(MerZooError, match="text has width 3, the model's has 32"):
        posterior(data.model, [Conversation("d", ("A",), [0], {"text": np.zeros((1, 3))})], modalities=["text"])


def test_dialogues_travel_to_other_processes_whole():
    data = synthetic(dialogues=(4, 1, 2), utterances=(2, 5))
    again = pickle.loads(pickle.dumps(data))
    assert type(again) is type(data)
    assert again.fingerprint == data.fingerprint
    assert again.bayes().expected == data.bayes().expected


def test_no_corpus_without_end_is_drawn():
    with pytest.raises(MerZooError, match=r"synthetic.dialogues: with 30 utterances each .* more than 2,000,000"):
        synthetic(dialogues=(10**9, 1, 1))
