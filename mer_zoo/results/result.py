"""The result file: what one run was and what came out; one JSON per recipe, dataset, seed and fold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from mer_zoo.errors import MerZooError
from mer_zoo.results.environment import Environment
from mer_zoo.results.identity import Identity, Precision, Protocol
from mer_zoo.results.metrics import SCORES, confusion_matrix
from mer_zoo.results.writing import write_atomically
from mer_zoo.showing import Shown, Table, Words

FORMAT: Literal[2] = 2
SUFFIX = ".result.json"


class Damaged(MerZooError):
    """A file that was written whole and is no longer."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassMetrics(_Record):
    """Precision, recall, F1 and number of labelled utterances of one class."""

    precision: float
    recall: float
    f1: float
    support: int


class Metrics(_Record):
    """What `metrics.score` returns, scores from 0 to 1; `others` are those that a recipe names by path."""

    weighted_f1: float
    macro_f1: float
    accuracy: float
    unweighted_recall: float
    per_class: dict[str, ClassMetrics]
    confusion: list[list[Annotated[int, Field(ge=0, le=2**53)]]]
    others: dict[str, float] = {}


class SplitMetrics(_Record):
    """Metrics at the chosen epoch; validation is None where there is no such split."""

    validation: Metrics | None
    test: Metrics


class DatasetInfo(_Record):
    """Which data a run saw; `ceilings` are the accuracies of optimal rules on the test split, where they are known.

    That of `full` no model can exceed; the others see less.
    """

    name: str
    fingerprint: str
    warnings: list[str] = []
    ceilings: dict[str, float] = {}
    label_names: list[str]
    modalities: dict[str, int]

    @property
    def ceiling(self) -> float | None:
        """The accuracy that no model can exceed."""
        return self.ceilings.get("full")


class Split(_Record):
    """Dialogue ids of every split."""

    train: list[str]
    validation: list[str] = []
    test: list[str]


class Prediction(_Record):
    """Labels (-1 = none), predicted classes and class probabilities of one dialogue, one entry per utterance.

    Probabilities are kept to six decimals; None stands for a value that was not finite.
    """

    label: list[int]
    predicted: list[int]
    probability: list[list[float | None]]

    @model_validator(mode="before")
    @classmethod
    def _round(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "probability" not in data:
            return data
        try:
            rows = [
                [round(float(p), 6) if p is not None and math.isfinite(p) else None for p in row]
                for row in data["probability"]
            ]
        except (TypeError, OverflowError):
            raise ValueError("probabilities are not rows of numbers") from None
        return {**data, "probability": rows}


class Seconds(_Record):
    """Wall-clock seconds: the whole run, its first epoch, and the mean of the later epochs."""

    total: float
    first_epoch: float
    per_epoch: float


class Result(Shown, _Record):
    """One run: its recipe, data, split, scores, predictions on the test split, times and environment.

    Attributes:
        format: version of the file format.
        run: `Identity.run` of what decided it; checked.
        seed: what decided weights, order of dialogues and dropout.
        fold: number of the held-out fold; None where the data has a test split.
        recipe_name: what tables call the model, such as "amb_dsgdn".
        recipe: the filled recipe.
        protocol: how the epoch was chosen: on "validation", or on the test split ("test-oracle"; watermarked).
        split_rule: what of the split rule differs from the default.
        precision: of the products.
        versions: of the library's computations and of the recipe's parts.
        chosen_epoch: the epoch the metrics and predictions are from, numbered as in `history`.
        oracle_metrics: test metrics at the epoch that is best on the test split, where it was looked for.
        history: one mapping per epoch. The report draws `epoch` against every key that ends in `loss` or in
            `weighted_f1`, and against `rates` (modality → balancing rate), `lambda` (differential attention → how
            much it takes off with its second map) and `contributions` (modality → what it contributes on validation,
            mean over utterances). Anything else in it is only kept.
        predictions: test dialogue → its `Prediction`.
        parameters: number of trainable parameters.
        peak_memory_mb: of the process on CPU, of the device on a GPU; None if not measured.
        finished: date and time with time zone.

    Raises:
        pydantic.ValidationError: a field is missing or unknown, or fields contradict one another.

    Example:
        >>> Result.model_fields["protocol"].annotation
        typing.Literal['validation', 'test-oracle']
    """

    format: Literal[2] = FORMAT
    run: str
    recipe_name: str = Field(min_length=1)
    recipe: dict[str, JsonValue]
    dataset: DatasetInfo
    seed: int
    fold: int | None = None
    protocol: Protocol
    split_rule: dict[str, JsonValue] = {}
    precision: Precision = "float32"
    versions: dict[str, int]
    split: Split
    chosen_epoch: int
    epochs_run: int
    metrics: SplitMetrics
    oracle_metrics: Metrics | None = None
    history: list[dict[str, JsonValue]]
    predictions: dict[str, Prediction]
    parameters: int
    seconds: Seconds
    peak_memory_mb: float | None = None
    environment: Environment
    finished: AwareDatetime

    @model_validator(mode="after")
    def _agrees(self) -> Result:
        if self.run != (want := self.identity.run):
            raise ValueError(f"run is {self.run}, but what decides it hashes to {want}")
        if set(self.predictions) != set(self.split.test):
            raise ValueError("predictions are not of the dialogues of the test split")
        names = self.dataset.label_names
        classes = len(names)
        scored = (self.metrics.test, self.metrics.validation, self.oracle_metrics)
        for what in [one for one in scored if one is not None]:
            if [len(row) for row in what.confusion] != [classes] * classes:
                raise ValueError(f"a confusion matrix is not of {classes} classes")
            if set(what.per_class) != set(names) or len(set(names)) < classes:
                raise ValueError("metrics are not of the classes of the dataset")
            for name, score in SCORES.items():
                if not np.isclose(getattr(what, name), score(np.array(what.confusion)), rtol=0, atol=1e-9):
                    raise ValueError(f"{name} does not agree with its confusion matrix")
        total = np.zeros((classes, classes), dtype=np.int64)
        for name, one in self.predictions.items():
            if len(one.label) != len(one.probability) or any(len(row) != classes for row in one.probability):
                raise ValueError(f"dialogue '{name}': probabilities are not [{len(one.label)}, {classes}]")
            try:
                total += confusion_matrix(one.label, one.predicted, classes)
            except MerZooError as error:
                raise ValueError(f"dialogue '{name}': {error}") from None
        if total.tolist() != self.metrics.test.confusion:
            raise ValueError("metrics.test.confusion does not agree with the predictions")
        return self

    @property
    def identity(self) -> Identity:
        """What decided the run."""
        return Identity(
            recipe=self.recipe,
            data=self.dataset.fingerprint,
            seed=self.seed,
            fold=self.fold,
            protocol=self.protocol,
            split=self.split_rule,
            precision=self.precision,
            versions=self.versions,
        )

    def shown(self) -> Iterator[Words | Table]:
        """Yield the scores, and those of every class."""
        metrics, percent = self.metrics, "{:.2f}".format
        fold = "" if self.fold is None else f", fold {self.fold}"
        yield Words(f"{self.recipe_name} on {self.dataset.name}, seed {self.seed}{fold}, in %", "title")
        split = {"test": metrics.test} | ({"validation": metrics.validation} if metrics.validation else {})
        rows = [(name, *(percent(100 * getattr(found, score)) for score in SCORES)) for name, found in split.items()]
        yield Table(("split", *(score.replace("_", " ") for score in SCORES)), rows, numbers=range(1, 1 + len(SCORES)))
        rows = [
            (name, *(percent(100 * x) for x in (found.precision, found.recall, found.f1)), str(found.support))
            for name, found in metrics.test.per_class.items()
        ]
        yield Table(("class, on test", "precision", "recall", "F1", "utterances"), rows, numbers=range(1, 5))
        yield from (Words(f"Warning about this data: {text}", "warning") for text in self.dataset.warnings)
        yield Words(f"Epoch {self.chosen_epoch} of {self.epochs_run}; {self.parameters:,} parameters.", "note")

    def records(self) -> list[dict[str, Any]]:
        """Return a row per test utterance: its label, what was predicted, and the probability of every class."""
        names = [*self.dataset.label_names, None]  # the last: -1, no label
        return [
            {"dialogue": dialogue, "utterance": i, "label": names[label], "predicted": names[predicted]}
            | dict(zip((f"p({name})" for name in self.dataset.label_names), probability, strict=True))
            for dialogue, one in self.predictions.items()
            for i, (label, predicted, probability) in enumerate(
                zip(one.label, one.predicted, one.probability, strict=True)
            )
        ]

    @property
    def file_name(self) -> str:
        """Name of the result file: what a reader looks for, then the run id that makes it unique."""
        return file_stem(self.recipe_name, self.dataset.name, self.seed, self.fold, self.run) + SUFFIX


def file_stem(name: str, data: str, seed: int, fold: int | None, run: str) -> str:
    """Return what the names of all files of a run begin with: short enough for any disk, whatever the names.

    Args:
        name, data: of recipe and dataset.
        seed, fold, run: of the run.

    Example:
        >>> file_stem("My model", "meld", 0, None, "f00d")
        'My_model-meld-seed0-f00d'
    """
    words = [name, data, f"seed{seed}", *([] if fold is None else [f"fold{fold}"])]
    return "-".join(file_word(word, 80) for word in words) + f"-{run}"


def file_word(text: str, most: int) -> str:
    """Return a text as any disk takes it in a name.

    Args:
        text: whatever a user calls things.
        most: bytes.

    Example:
        >>> file_word("a/b, seed 0", 150)
        'a_b_seed_0'
    """
    return re.sub(r"[^\w.]+", "_", text).encode()[:most].decode(errors="ignore")


def write_result(result: Result, folder: str | Path) -> Path:
    """Write one result file into a folder, atomically, and return its path; the same run overwrites its file.

    Raises:
        MerZooError: the folder cannot be written.
    """
    fields = json.loads(result.model_dump_json())  # pydantic turns NaN and infinities into null
    lines = (f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in fields.items())
    path = Path(folder) / result.file_name
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return path


def read_result(path: str | Path) -> Result:
    """Read and check one result file.

    Raises:
        MerZooError: the file is missing, damaged, contradicts itself, or is of another format version.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        if "\\ud" in text.lower():  # perhaps half a character, which no report could be written with
            json.dumps(data, ensure_ascii=False).encode()
        if isinstance(data, dict) and data.get("format", FORMAT) != FORMAT:
            raise MerZooError(
                f"{path}: result format {data['format']}; this mer_zoo reads format {FORMAT}. "
                "Read it with the version that wrote it."
            )
        return Result.model_validate(data)
    except OSError as error:
        raise MerZooError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        reason = f"{place}: {first['msg']}" if place else first["msg"]
    except (ValueError, RecursionError) as error:
        reason = f"not JSON: {error}"
    raise Damaged(f"{path}: damaged result file ({reason}). Restore it, or delete it and repeat its run.") from None


def read_results(folder: str | Path, on_damaged: Callable[[str], None] | None = None) -> list[Result]:
    """Read every result file in a folder and the folders below it, in order of their paths.

    Args:
        folder: where to look for files that end in `.result.json`.
        on_damaged: called with a message for every file that cannot be used, which is then left out (a resuming suite
            repeats its run). Without it such files are an error that names them all.

    Raises:
        MerZooError: there is no such folder, or files cannot be used and `on_damaged` is not given.

    Example:
        >>> import tempfile
        >>> read_results(tempfile.mkdtemp())
        []
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MerZooError(f"{folder}: no such folder. Give the one that holds the result files.")
    results, complaints = [], []
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            results.append(read_result(path))
        except MerZooError as error:
            complaints.append(str(error))
    if complaints and on_damaged is None:
        raise MerZooError("\n".join(complaints))
    for complaint in complaints:
        assert on_damaged is not None
        on_damaged(complaint)
    return results
