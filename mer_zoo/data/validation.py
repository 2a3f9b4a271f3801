"""What is in a dataset, and what is wrong with it: counts, ranges, copies across splits, features fitted on labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_zoo.data.conversation import UNLABELLED, Conversation, Dataset
from mer_zoo.data.copies import Copies, copies_in, copy_notes, copy_warnings
from mer_zoo.data.normalising import LARGE, SMALL, deviations
from mer_zoo.data.splits import k_folds

if TYPE_CHECKING:
    from rich.console import Group

# A gap between two accuracies counts when it is both large and certain. Honest splits differ a little in speakers and
# class shares, which 0.1 allows for; 4 standard errors happen by chance once in 30,000 modalities.
LARGE_GAP = 0.1
CERTAIN_GAP = 4.0
FOLDS = 5
TRAIN_UTTERANCES = 3000  # enough to place an accuracy within 0.01, few enough for seconds


@dataclass(frozen=True)
class SplitCount:
    """How much there is of a split; `labelled` counts utterances, `classes` is the share of each class among them."""

    dialogues: int
    utterances: int
    labelled: int
    longest: int
    most_speakers: int
    classes: dict[str, float]


@dataclass(frozen=True)
class FeatureRange:
    """The values of a modality, over utterances that have it.

    `constant` counts columns, `extreme` those of a deviation that calls for normalising, `smallest` and `largest` are
    the deviations of varying columns; `absent` and `zero` count utterances.
    """

    width: int
    minimum: float
    maximum: float
    mean: float
    std: float
    constant: int
    extreme: int
    smallest: float
    largest: float
    absent: int
    zero: int


@dataclass(frozen=True)
class Fit:
    """How far a linear model's accuracy on unseen dialogues inside train exceeds its accuracy on a held-out split."""

    modality: str
    split: str
    train_accuracy: float
    held_out_accuracy: float
    standard_error: float
    fitted: bool


@dataclass(frozen=True)
class Report:
    """What `describe_dataset` found; `to_dict` makes it JSON, `render_report` a page for the terminal."""

    name: str
    splits: dict[str, SplitCount]
    modalities: dict[str, FeatureRange]
    unplaced_dialogues: int
    unlabelled_utterances: int
    empty_transcripts: int
    copies: dict[str, Copies]
    fits: tuple[Fit, ...]
    fit_note: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists, strings and numbers."""
        return asdict(self)


def describe_dataset(dataset: Dataset) -> Report:
    r"""Count and measure a dataset, and warn of what makes results on it look better than they are.

    Two warnings are looked for. **Copies**: more than 1 % of a held-out split lies in train too, as whole dialogues or
    in runs of at least three turns, feature for feature; single utterances that occur again are a note, since people
    repeat themselves. **Fitted features**: a linear model on standardised features is right on unseen dialogues
    *inside* train (5-fold by dialogue) far more often than on held-out dialogues, which means that the features
    were made with the help of the train labels.

    $$\text{gap} = \text{acc}_\text{cv}(\text{train}) - \text{acc}(\text{held out}),\qquad
      \text{fitted when gap} > 0.1 \text{ and gap} > 4\,\text{se}$$
    $$\text{se}^2 = \text{se}_\text{cv}^2 + \text{se}_\text{held}^2,\qquad \text{each se} =
      \sqrt{\tfrac{G}{G-1} \sum_g (c_g - \text{acc}\; n_g)^2} \Big/ \sum_g n_g$$
    over the G dialogues with $n_g$ labelled utterances and $c_g$ right answers, since utterances of a dialogue are not
    independent. On honest features both accuracies estimate the same thing, the first from 20 % less data.

    The labels of a test split are read for this diagnosis of the features alone. It chooses no model and no
    setting, and no accuracy of it is a result.

    Args:
        dataset: any dataset.

    Returns:
        The report. Its `warnings` begin with the dataset's own; each is one sentence or two.

    Example:
        >>> dialogue = Conversation("d0", ("Ann",), [0], {"text": np.ones((1, 3), np.float32)})
        >>> report = describe_dataset(Dataset("tiny", (dialogue,), ("sad",), {"all": ("d0",)}))
        >>> report.splits["all"].utterances, report.modalities["text"].constant, report.fit_note
        (1, 3, 'only one split: nothing to compare')
    """
    copies = copies_in(dataset)
    fits, note = _fits(dataset)
    ranges = {modality: _range(dataset, modality) for modality in dataset.widths}
    found = [*dataset.warnings, *copy_warnings(dataset, copies), *_fit_warnings(fits)]
    placed = {name for ids in dataset.splits.values() for name in ids}
    return Report(
        name=dataset.name,
        splits={split: _count(dataset, dataset.select(ids)) for split, ids in dataset.splits.items() if ids},
        modalities=ranges,
        unplaced_dialogues=len(dataset) - len(placed),
        unlabelled_utterances=sum(int((dialogue.labels == UNLABELLED).sum()) for dialogue in dataset),
        empty_transcripts=sum(
            not text.strip() for dialogue in dataset for text in dialogue.transcript or ("",) * len(dialogue)
        ),
        copies=copies,
        fits=fits,
        fit_note=note,
        notes=(*copy_notes(copies), *_scale_notes(ranges)),
        warnings=tuple(dict.fromkeys(found)),
    )


def render_report(report: Report) -> Group:
    """Return the report as something rich can print."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", title_style="bold")
        for number, column in enumerate(columns):
            made.add_column(column, justify="right" if number else "left")
        return made

    counts = table(f"{escape(report.name)}: splits", "", *map(escape, report.splits))
    for row in ("dialogues", "utterances", "labelled", "longest", "most_speakers"):
        counts.add_row(row.replace("_", " "), *(f"{getattr(count, row):,}" for count in report.splits.values()))
    for label in next(iter(report.splits.values())).classes if report.splits else ():
        counts.add_row(escape(label), *(f"{count.classes[label]:.1%}" for count in report.splits.values()))

    columns = ("width", "minimum", "maximum", "mean", "std", "constant", "extreme", "absent", "zero")
    ranges = table("Features", "", *columns)
    for modality, values in report.modalities.items():
        ranges.add_row(escape(modality), *(f"{getattr(values, column):,.4g}" for column in columns))

    lines = [
        f"Missing: {report.unlabelled_utterances:,} utterances without a label, {report.empty_transcripts:,} without a "
        f"transcript; {report.unplaced_dialogues:,} dialogues in no split."
    ]
    lines += [
        f"Copies in {split}: {copy.utterances:,} utterances in runs; dialogues copied whole: {copy.dialogues:,}."
        for split, copy in report.copies.items()
    ]
    fits = table("Were features fitted on the train labels?", "", "held out", "train, cv", "accuracy", "gap ± se", "")
    for fit in report.fits:
        gap = f"{fit.train_accuracy - fit.held_out_accuracy:+.3f} ± {fit.standard_error:.3f}"
        accuracies = (f"{fit.train_accuracy:.3f}", f"{fit.held_out_accuracy:.3f}")
        fits.add_row(escape(fit.modality), fit.split, *accuracies, gap, "[red]fitted[/]" if fit.fitted else "no sign")
    verdict = fits if report.fits else f"Were features fitted on the train labels? {report.fit_note.capitalize()}."
    lines += [f"Note: {escape(note)}" for note in report.notes]
    alarms = [f"[yellow]Warning:[/] {escape(warning)}" for warning in report.warnings]
    return Group(counts, ranges, *lines, verdict, *(alarms or ["[green]No warnings.[/]"]))


def _count(dataset: Dataset, dialogues: Sequence[Conversation]) -> SplitCount:
    labels = np.concatenate([dialogue.labels[dialogue.labels != UNLABELLED] for dialogue in dialogues])
    numbers = np.bincount(labels, minlength=len(dataset.label_names))
    return SplitCount(
        dialogues=len(dialogues),
        utterances=sum(map(len, dialogues)),
        labelled=len(labels),
        longest=max(map(len, dialogues)),
        most_speakers=max(int(dialogue.speaker_index.max()) + 1 for dialogue in dialogues),
        classes={n: float(k / max(len(labels), 1)) for n, k in zip(dataset.label_names, numbers, strict=True)},
    )


def _range(dataset: Dataset, modality: str) -> FeatureRange:
    rows = np.concatenate([dialogue.features[modality] for dialogue in dataset])
    present = rows[np.concatenate([dialogue.mask(modality) for dialogue in dataset])]
    seen = present if len(present) else np.zeros((1, rows.shape[1]), np.float32)
    varying = deviations(seen)
    return FeatureRange(
        width=rows.shape[1],
        minimum=float(seen.min()),
        maximum=float(seen.max()),
        mean=float(seen.mean(dtype=np.float64)),
        std=float(seen.std(dtype=np.float64)),
        constant=rows.shape[1] - len(varying),
        extreme=int(((varying < SMALL) | (varying > LARGE)).sum()),
        smallest=float(varying.min()) if len(varying) else 0.0,
        largest=float(varying.max(initial=0.0)),
        absent=len(rows) - len(present),
        zero=int((~present.any(axis=1)).sum()),
    )


def _held_out(dataset: Dataset) -> Iterator[tuple[str, tuple[Conversation, ...]]]:
    """Give the splits that train can be compared with."""
    for split in ("validation", "test"):
        if dataset.splits.get("train") and dataset.splits.get(split):
            yield split, dataset.select(dataset.splits[split])


def _scale_notes(ranges: dict[str, FeatureRange]) -> Iterator[str]:
    """Tell of columns that call for normalising; no warning, for what is normalised is no worse for it."""
    for modality, found in ranges.items():
        if found.extreme:
            yield (
                f"{found.extreme} of the {found.width} columns of {modality} have deviations below {SMALL:g} or above "
                f"{LARGE:g} (from {found.smallest:.2g} to {found.largest:.2g}): models learn more from such features "
                f"with `normalise: {{{modality}: train}}`."
            )


def _fit_warnings(fits: Sequence[Fit]) -> Iterator[str]:
    for modality in dict.fromkeys(fit.modality for fit in fits if fit.fitted):
        worst = max(
            (fit for fit in fits if fit.modality == modality),
            key=lambda fit: fit.train_accuracy - fit.held_out_accuracy,
        )
        yield (
            f"The {modality} features look fitted on the train labels: a linear model is right on "
            f"{worst.train_accuracy:.0%} of the utterances of unseen dialogues inside train, but on "
            f"{worst.held_out_accuracy:.0%} in {worst.split}. A validation split carved out of train chooses "
            "badly, and scores do not rank models."
        )


def _fits(dataset: Dataset) -> tuple[tuple[Fit, ...], str]:
    """Compare accuracy inside train with accuracy on held-out dialogues, or say why there is nothing to compare."""
    held_out = dict(_held_out(dataset))
    if not held_out:
        return (), "only one split: nothing to compare"
    train = _some(dataset.select(dataset.splits["train"]))
    judges = {
        split: labelled for split, dialogues in held_out.items() if len(labelled := _labelled(dialogues)) >= FOLDS
    }
    if len(train) < 2 * FOLDS or not judges:
        return (), f"too few labelled dialogues: it takes {2 * FOLDS} in train and {FOLDS} held out"
    if len({int(label) for dialogue in train for label in dialogue.labels if label != UNLABELLED}) < 2:
        return (), "train has a single class"
    by_id = {dialogue.id: dialogue for dialogue in train}
    folds = [[by_id[name] for name in part] for part in k_folds(list(by_id), FOLDS, seed=0)]
    fits = []
    for modality in dataset.widths:
        inside = []
        for fold in folds:
            rest = [dialogue for other in folds if other is not fold for dialogue in other]
            inside += _tally(_linear_model(rest, modality), fold, modality)
        train_accuracy, train_error = _accuracy(inside)
        model = _linear_model(train, modality)
        for split, dialogues in judges.items():
            accuracy, error = _accuracy(_tally(model, dialogues, modality))
            both = float(np.hypot(train_error, error))
            gap = train_accuracy - accuracy
            fitted = gap > LARGE_GAP and gap > CERTAIN_GAP * both
            fits.append(Fit(modality, split, train_accuracy, accuracy, both, fitted))
    return tuple(fits), ""


def _labelled(dialogues: Sequence[Conversation]) -> list[Conversation]:
    return [dialogue for dialogue in dialogues if (dialogue.labels != UNLABELLED).any()]


def _some(dialogues: Sequence[Conversation]) -> list[Conversation]:
    """Draw whole dialogues until there are utterances enough."""
    labelled = _labelled(dialogues)
    order = np.random.default_rng(0).permutation(len(labelled))
    lengths = np.array([len(labelled[i]) for i in order], dtype=np.int64)
    before = np.cumsum(lengths) - lengths
    return [labelled[i] for i in order[before < TRAIN_UTTERANCES]]


def _linear_model(dialogues: Sequence[Conversation], modality: str) -> Any:
    from sklearn.exceptions import ConvergenceWarning  # here, for sklearn takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.concatenate([dialogue.labels for dialogue in dialogues])
    values = np.concatenate([dialogue.values(modality) for dialogue in dialogues]).astype(np.float64)
    known = labels != UNLABELLED
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an accuracy to two digits is all that is asked
        return model.fit(values[known], labels[known])


def _tally(model: Any, dialogues: Sequence[Conversation], modality: str) -> list[tuple[int, int]]:
    """Count right answers and labelled utterances of every dialogue; one prediction for all, as calls are dear."""
    labels = np.concatenate([dialogue.labels for dialogue in dialogues])
    values = np.concatenate([dialogue.values(modality) for dialogue in dialogues]).astype(np.float64)
    known = labels != UNLABELLED
    right = known & (model.predict(values) == labels)
    starts = np.cumsum([0, *map(len, dialogues[:-1])])
    counts = (np.add.reduceat(flags.astype(np.int64), starts).tolist() for flags in (right, known))
    return list(zip(*counts, strict=True))


def _accuracy(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return accuracy over utterances and its standard error, with dialogues as the independent units."""
    right, total = np.array(counts, dtype=np.float64).T
    accuracy = right.sum() / total.sum()
    spread = ((right - accuracy * total) ** 2).sum() * len(counts) / (len(counts) - 1)
    return float(accuracy), float(np.sqrt(spread) / total.sum())
