"""The normaliser: fitted on train alone, exact at any scale, causal where it says so, and kept as plain arrays."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.normalising import Normaliser
from mer_zoo.data.synthetic import synthetic
from mer_zoo.data.validation import describe_dataset, render_report
from mer_zoo.errors import MerZooError

WAYS = {"text": "train", "audio": "speaker", "visual": "speaker_causal"}


@pytest.fixture(scope="module")
def data():
    return synthetic(dialogues=(30, 5, 8), utterances=(1, 15), failure=0.4, fails=["audio"], fails_in=["train", "test"])


def train_of(data):
    return data.select(data.splits["train"])


def scaled(dialogue, factor):
    return replace(dialogue, features={m: x * factor for m, x in dialogue.features.items()})


def test_train_rows_have_mean_0_and_deviation_1_where_present(data):
    normaliser = Normaliser.fit(train_of(data), dict.fromkeys(data.widths, "train"))
    applied = [normaliser.apply(dialogue) for dialogue in train_of(data)]
    assert any(d.present for d in applied)
    for modality in data.widths:
        rows = np.concatenate([d.features[modality][d.mask(modality)] for d in applied])
        np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(rows.std(0), 1, atol=1e-5)


def test_absent_rows_stay_zero_and_nothing_but_features_changes(data):
    for way in ("train", "speaker", "speaker_causal"):
        normaliser = Normaliser.fit(train_of(data), {"audio": way})
        for dialogue in data:
            applied = normaliser.apply(dialogue)
            assert np.array_equal(applied.features["text"], dialogue.features["text"])
            assert (applied.id, applied.speakers) == (dialogue.id, dialogue.speakers)
            assert np.array_equal(applied.labels, dialogue.labels)
            assert all(np.array_equal(applied.mask(m), dialogue.mask(m)) for m in data.widths)
            if dialogue.present:
                assert not applied.features["audio"].any()


def test_other_dialogues_have_no_say(data):
    normaliser = Normaliser.fit(train_of(data), WAYS)
    for factor in (1e6, -1.0):
        conversations = [d if d.id in data.splits["train"] else scaled(d, factor) for d in data]
        changed = Dataset("changed", conversations, data.label_names, data.splits)
        again = Normaliser.fit(changed.select(changed.splits["train"]), WAYS)
        assert {k: v.tobytes() for k, v in again.state().items()} == {
            k: v.tobytes() for k, v in normaliser.state().items()
        }


@pytest.mark.parametrize("way", ["train", "speaker", "speaker_causal"])
def test_the_result_does_not_depend_on_scale_and_offset_over_seven_orders_of_magnitude(data, way):
    plain = Normaliser.fit(train_of(data), {"audio": way})
    for factor in (10.0 ** np.linspace(-5, 2.5, 24), 1e30):
        other = Normaliser.fit([scaled_audio(d, factor) for d in train_of(data)], {"audio": way})
        for dialogue in data:
            expected = plain.apply(dialogue).features["audio"]
            np.testing.assert_allclose(
                other.apply(scaled_audio(dialogue, factor)).features["audio"], expected, rtol=1e-4, atol=1e-4
            )


def scaled_audio(dialogue, factor):
    return replace(dialogue, features=dict(dialogue.features) | {"audio": dialogue.features["audio"] * factor})


def test_constant_columns_are_zero_and_outliers_are_clipped():
    features = np.full((40, 3), 0.1, np.float32)
    features[:, 1] = np.linspace(0, 1, 40)
    train = Conversation("train", ("A", "B") * 20, [0] * 40, {"text": features})
    strange = np.array([[7.0, 1e30, 0.1], [0.1, 0.5, -1e30]], np.float32)
    other = Conversation("other", ("A", "C"), [0, 0], {"text": strange})
    for way in ("train", "speaker", "speaker_causal"):
        got = Normaliser.fit([train], {"text": way}).apply(other).features["text"]
        assert not got[:, [0, 2]].any()
        assert 0.9 < got[0, 1] <= 10
        assert abs(got[1, 1]) < 1e-6
    assert Normaliser.fit([train], {"text": "train"}).apply(other).features["text"][0, 1] == 10


def test_a_modality_that_train_never_has_is_zero():
    dialogue = Conversation("d", ("A",), [0], {"text": [[3.0]], "audio": [[1.0]]}, {"audio": [False]})
    heard = replace(dialogue, present={})
    assert Normaliser.fit([dialogue], {"audio": "train"}).apply(heard).features["audio"].tolist() == [[0.0]]


def reference(z, turns, causal, t):
    """The definition, for one turn."""
    told = [z[u] for u in turns if u < t] if causal else [z[u] for u in turns]
    told = np.array(told).reshape(len(told), z.shape[1])
    one_more = np.concatenate([told, np.zeros((1, z.shape[1]))])
    mean = one_more.mean(0)
    variance = (1 + (told**2).sum(0)) / (len(told) + 1) - mean**2
    return np.clip((z[t] - mean) / np.sqrt(variance), -10, 10)


@pytest.mark.parametrize("way", ["speaker", "speaker_causal"])
def test_speakers_are_normalised_by_the_turns_that_the_definition_names(data, way):
    ways = dict.fromkeys(("audio", "text"), way)
    plain = Normaliser.fit(train_of(data), dict.fromkeys(ways, "train"))
    normaliser = Normaliser.fit(train_of(data), ways)
    rng = np.random.default_rng(0)
    for dialogue in data.select(data.splits["validation"]):
        present = {"audio": rng.random(len(dialogue)) < 0.7}
        dialogue = replace(dialogue, present=present)
        got = normaliser.apply(dialogue).features
        for modality in ways:
            z = plain.apply(dialogue).features[modality].astype(np.float64)
            here = present.get(modality, np.ones(len(dialogue), bool))
            for t in np.flatnonzero(here):
                turns = np.flatnonzero(here & (dialogue.speaker_index == dialogue.speaker_index[t]))
                expected = reference(z, turns, way == "speaker_causal", t)
                np.testing.assert_allclose(got[modality][t], expected, rtol=1e-4, atol=1e-5)
                if way == "speaker_causal" and t == turns[0]:
                    np.testing.assert_allclose(got[modality][t], z[t], rtol=1e-6)


def test_causal_does_not_see_the_future_and_speaker_does(data):
    dialogue = max(data, key=len)
    cut = len(dialogue) - 1
    features = {m: x.copy() for m, x in dialogue.features.items()}
    for x in features.values():
        x[cut:] += 3
    changed = replace(dialogue, features=features, present={})
    dialogue = replace(dialogue, present={})
    for way, same in (("speaker_causal", True), ("speaker", False)):
        normaliser = Normaliser.fit(train_of(data), {"text": way})
        one, other = (normaliser.apply(d).features["text"][:cut] for d in (dialogue, changed))
        assert np.array_equal(one, other) is same


def test_the_state_is_plain_arrays_and_makes_the_normaliser_again(data, tmp_path):
    normaliser = Normaliser.fit(train_of(data), WAYS | {"audio": "none"})
    np.savez(tmp_path / "state.npz", **normaliser.state())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        again = Normaliser.from_state(json.loads(json.dumps(normaliser.ways)), dict(file), data.widths)
    for dialogue in data:
        one, other = normaliser.apply(dialogue), again.apply(dialogue)
        assert all(np.array_equal(one.features[m], other.features[m]) for m in data.widths)
    assert np.array_equal(one.features["audio"], dialogue.features["audio"])


def test_what_cannot_be_used_is_named(data):
    train = train_of(data)
    with pytest.raises(MerZooError, match=r"normalise.text: no way 'trian'\. Did you mean 'train'"):
        Normaliser.fit(train, {"text": "trian"})
    with pytest.raises(MerZooError, match=r"normalise: no modality 'txt'\. Did you mean 'text'"):
        Normaliser.fit(train, {"txt": "train"})
    with pytest.raises(MerZooError, match="no train dialogue"):
        Normaliser.fit([], {"text": "train"})
    narrow = Conversation("narrow", ("A",), [0], {"text": [[1.0]]})
    with pytest.raises(MerZooError, match=r"dialogue 'narrow': text has width 1, but 32 in the train dialogues"):
        Normaliser.fit(train, {"text": "train"}).apply(narrow)
    state = Normaliser.fit(train, {"text": "train"}).state()
    with pytest.raises(MerZooError, match=r"audio.mean, audio.scale missing"):
        Normaliser.from_state({"text": "train", "audio": "train"}, state, {"text": 32})
    with pytest.raises(MerZooError, match=r"text.mean, text.scale not used"):
        Normaliser.from_state({"text": "none"}, state, {"text": 32})
    for damage in (state["text.mean"][:-1], state["text.mean"].astype(np.float32), np.float64(1)):
        with pytest.raises(MerZooError, match=r"text.mean has shape"):
            Normaliser.from_state({"text": "train"}, {**state, "text.mean": np.asarray(damage)}, {"text": 32})


def test_validate_tells_of_extreme_and_constant_columns(data):
    assert describe_dataset(data).notes == ()
    factor = np.ones(24)
    factor[:5], factor[5:7], factor[7] = 1e-6, 1e5, 0
    made = Dataset("wild", [scaled_audio(d, factor) for d in data], data.label_names, data.splits)
    report = describe_dataset(made)
    assert (report.modalities["audio"].extreme, report.modalities["audio"].constant) == (7, 1)
    assert (report.modalities["text"].extreme, report.modalities["text"].constant) == (0, 0)
    assert [note[:46] for note in report.notes] == ["7 of the 24 columns of audio have deviations b"]
    assert report.warnings == ()  # warnings follow every result, also of what normalises
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(render_report(report))
    assert f"Note: {report.notes[0]}" in console.export_text()
