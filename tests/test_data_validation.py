"""The report's numbers, and its two warnings: raised where they should be, and nowhere else."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from mer_zoo.data.container import read_dataset, write_dataset
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.importing import import_dataset
from mer_zoo.data.validation import describe_dataset, render_report


def shown(report):
    console = Console(file=io.StringIO(), width=120)
    console.print(render_report(report))
    return console.file.getvalue()


def drawn(seed=0, fitted=0.0, train=60, test=30, signal=0.5, modality="text"):
    """Dialogues with honest features; `fitted` adds the train labels themselves, as a fitted extractor would."""
    rng = np.random.default_rng(seed)
    drawn = []
    for number in range(train + test):
        labels = rng.integers(0, 3, 12)
        values = rng.normal(size=(12, 20)).astype(np.float32)
        values[np.arange(12), labels] += signal + (fitted if number < train else 0)
        drawn.append(Conversation(f"d{number}", ("Ann", "Bob") * 6, labels, {modality: values}))
    ids = [dialogue.id for dialogue in drawn]
    return Dataset("drawn", tuple(drawn), ("sad", "happy", "angry"), {"train": ids[:train], "test": ids[train:]})


def test_counts_ranges_and_gaps():
    one = Conversation(
        "a",
        ("Ann", "Bob"),
        [0, -1],
        {"text": np.array([[1, 5], [3, 5]], np.float32), "audio": np.array([[7], [0]], np.float32)},
        {"audio": [True, False]},
        ("Hi.", " "),
    )
    two = Conversation(
        "b", ("Ann",), [1], {"text": np.array([[0, 0]], np.float32), "audio": np.ones((1, 1), np.float32)}
    )
    report = describe_dataset(Dataset("tiny", (one, two), ("sad", "happy"), {"train": ("a",)}))
    train = report.splits["train"]
    assert (train.dialogues, train.utterances, train.labelled, train.longest, train.most_speakers) == (1, 2, 1, 2, 2)
    assert train.classes == {"sad": 1.0, "happy": 0.0}
    text, audio = report.modalities["text"], report.modalities["audio"]
    assert (text.width, text.minimum, text.maximum, text.constant, text.absent, text.zero) == (2, 0, 5, 0, 0, 1)
    assert text.mean == pytest.approx(14 / 6)
    assert (audio.minimum, audio.maximum, audio.absent, audio.constant) == (1, 7, 1, 0)
    assert (report.unplaced_dialogues, report.unlabelled_utterances, report.empty_transcripts) == (1, 1, 2)
    assert report.warnings == ()
    assert "No warnings" in shown(report)


def test_a_report_is_json_and_a_page():
    report = describe_dataset(replace(drawn(), warnings=("Beware of [red]markup[/red].",)))
    assert json.loads(json.dumps(report.to_dict()))["splits"]["test"]["utterances"] == 360
    page = shown(report)
    assert "Warning: Beware of [red]markup[/red]." in page
    for word in ("dialogues", "happy", "text", "no sign"):
        assert word in page


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("signal", [0.0, 0.5, 2.0])
def test_honest_features_raise_no_alarm(seed, signal):
    report = describe_dataset(drawn(seed, signal=signal))
    assert len(report.fits) == 1
    assert report.warnings == ()


@pytest.mark.parametrize("seed", range(3))
def test_features_fitted_on_train_labels_do(seed):
    (warning,) = describe_dataset(drawn(seed, fitted=2.0)).warnings
    assert warning.startswith("The text features look fitted on the train labels")
    assert "in test" in warning


def test_a_few_unlucky_dialogues_are_no_proof():
    report = describe_dataset(drawn(fitted=2.0, test=2))
    assert report.fits == ()
    assert report.fit_note.startswith("too few labelled dialogues")


@pytest.mark.parametrize(("change", "note"), [
    (lambda d: replace(d, splits={"all": [t.id for t in d]}), "only one split"),
    (lambda d: replace(d, splits={"train": d.splits["train"]}), "only one split"),
    (lambda d: replace(d, conversations=tuple(replace(t, labels=t.labels * 0) for t in d)), "train has a single class"),
    (lambda d: replace(d, conversations=tuple(replace(t, labels=t.labels * 0 - 1) for t in d)), "too few labelled"),
])  # fmt: skip
def test_where_nothing_can_be_compared_it_says_so(change, note):
    report = describe_dataset(change(drawn(fitted=2.0)))
    assert report.fits == ()
    assert report.fit_note.startswith(note)
    assert report.warnings == ()
    assert note.split()[-1] in shown(report)


def test_unlabelled_and_absent_utterances_take_no_part():
    data = drawn(fitted=2.0)
    rng = np.random.default_rng(1)
    dialogues = []
    for dialogue in data:
        gone = rng.random(len(dialogue)) < 0.3
        dialogues.append(replace(dialogue, labels=np.where(gone, -1, dialogue.labels), present={"text": ~gone}))
    (fit,) = describe_dataset(replace(data, conversations=tuple(dialogues))).fits
    assert fit.fitted


def with_copies(data, dialogues, turns=slice(None)):
    """Replace the features of the first test dialogues by those of train dialogues."""
    by_id = {dialogue.id: dialogue for dialogue in data}
    for target, source in list(zip(data.splits["test"], data.splits["train"], strict=False))[:dialogues]:
        features = {m: x.copy() for m, x in by_id[target].features.items()}
        for modality, values in features.items():
            values[turns] = by_id[source].features[modality][turns]
        by_id[target] = replace(by_id[target], features=features)
    return replace(data, conversations=tuple(by_id.values()))


def test_dialogues_copied_into_the_test_split():
    report = describe_dataset(with_copies(drawn(), 2))
    assert (report.copies["test"].utterances, report.copies["test"].dialogues) == (24, 2)
    (warning,) = report.warnings
    assert warning.startswith("24 of the 360 test utterances (2 whole dialogues) also occur in train")


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_what_is_said_again_is_a_note_and_a_run_of_three_turns_a_warning(modality):
    pairs = describe_dataset(with_copies(drawn(modality=modality), 10, slice(0, 2)))
    assert (pairs.copies["test"].utterances, pairs.copies["test"].repeats) == (0, 20)
    assert pairs.warnings == ()
    assert pairs.notes[0] == "20 single utterances of test occur in train too, feature for feature."
    runs = describe_dataset(with_copies(drawn(modality=modality), 10, slice(4, 7)))
    assert (runs.copies["test"].utterances, runs.copies["test"].dialogues) == (30, 0)
    assert runs.warnings[0].startswith("30 of the 360 test utterances (0 whole dialogues) also occur in train in the")


def test_short_repeats_are_told_apart():
    data = with_copies(drawn(), 10, slice(0, 2))
    said = ("Yeah.", "I never said any such thing.", *"abcdefghij")
    spoken = replace(data, conversations=tuple(replace(dialogue, transcript=said) for dialogue in data))
    assert "20 single utterances of test occur in train too, feature for feature, 10 of them of at most 3 words." in (
        describe_dataset(spoken).notes
    )


def test_dialogues_twice_in_one_pool():
    data = with_copies(drawn(), 2)
    pool = replace(data, splits={"all": [dialogue.id for dialogue in data]})
    (warning,) = describe_dataset(pool).warnings
    assert warning.startswith("24 of the 1,080 utterances (2 whole dialogues) occur twice in the same order")
    assert describe_dataset(replace(drawn(), splits={"all": [dialogue.id for dialogue in data]})).warnings == ()


def test_warnings_are_not_repeated():
    data = drawn(fitted=2.0)
    once = replace(data, warnings=("Beware.", *describe_dataset(data).warnings))
    assert describe_dataset(once).warnings == once.warnings


def test_the_trap_in_mosi(shared_data, tmp_path):
    data = import_dataset("npz", shared_data("mosi/mosi.npz"))
    flagged = [fit.modality for fit in describe_dataset(data).fits if fit.fitted]
    assert flagged == ["text", "visual"]
    assert len(data.warnings) == 2
    assert read_dataset(write_dataset(data, tmp_path / "mosi")).warnings == data.warnings


def test_no_trap_in_meld(shared_data):
    text = import_dataset("npz", shared_data("meld/meld_text.npz"))
    assert text.warnings == ()
    dev = describe_dataset(import_dataset("npz", shared_data("meld/meld_dev_text_audio.npz")))
    assert dev.warnings == ()
    assert dev.fit_note == "only one split: nothing to compare"
