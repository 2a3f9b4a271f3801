"""What is trained on what: a plan, the dialogues of one split, and where they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.normalising import Normaliser
from mer_zoo.data.splits import Split, SplitRule
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.kernel.base import Kernel
from mer_zoo.model.filling import versions
from mer_zoo.model.model import Facts
from mer_zoo.model.plan import Plan
from mer_zoo.model.wiring import Wiring, wire
from mer_zoo.results.identity import Identity, Precision, Protocol


@dataclass(frozen=True)
class Task:
    """A plan and the dialogues of one split; seeds share it.

    Corpora are made on first use, so graphs are built once, and the test dialogues not before the epoch is chosen.

    Attributes:
        name: what tables call the model.
        plan: what `filling.fill` returns.
        dataset, split: the dialogues.
        fold: which fold of a cross-validation this is; None: the data's own splits.
        device: where to compute.
        kernels: kernel class to force, or None.
        split_rule: how the split was made.
    """

    name: str
    plan: Plan
    dataset: Dataset
    split: Split
    fold: int | None = None
    device: str = "cpu"
    kernels: type[Kernel] | None = None
    split_rule: SplitRule = field(default_factory=SplitRule)

    def __post_init__(self) -> None:
        """Refuse a split without labels: it could be neither learnt from nor scored."""
        for part, ids in self.split._asdict().items():
            if not any((dialogue.labels >= 0).any() for dialogue in self.dataset.select(ids)):
                called = "training" if part == "train" else part
                raise MerZooError(
                    f"dataset '{self.dataset.name}': no {called} utterance has a label, and every split is scored. "
                    "Label some, or leave dialogues without labels to `mer-zoo predict`."
                )

    @cached_property
    def facts(self) -> Facts:
        """What parts may know of the data: never anything of the test labels.

        Raises:
            MerZooError: no training utterance has a label, or the data lack a label column that the recipe judges.
        """
        columns = self.dataset.conversations[0].targets
        for task, count in self.plan.tasks.items():
            if task not in columns:
                known = nearest(task, columns) or (f" It has {', '.join(columns)}." if columns else " It has none.")
                raise MerZooError(
                    f"tasks.{task}: dataset '{self.dataset.name}' has no label column '{task}'.{known} Use data that "
                    f"has it (import it as a further column '{task}'), or a recipe without this task."
                )
            largest = max(int(dialogue.targets[task].max()) for dialogue in self.dataset)
            if largest >= count:
                raise MerZooError(f"tasks.{task}: the recipe has {count} classes, but the data have a label {largest}.")
        classes = len(self.dataset.label_names)
        labels = np.concatenate([dialogue.labels for dialogue in self.dataset.select(self.split.train)])
        counts = np.bincount(labels[labels >= 0], minlength=classes)
        longest = max(len(dialogue) for dialogue in self.dataset)
        return Facts(self.plan.modalities, self.dataset.max_speakers, classes, tuple(counts.tolist()), longest)

    @cached_property
    def wiring(self) -> Wiring:
        """Graph builder and views of the plan."""
        return wire(self.plan, self.facts.speakers)

    @cached_property
    def normaliser(self) -> Normaliser:
        """What brings features to one scale, measured on the train dialogues alone."""
        return Normaliser.fit(self.dataset.select(self.split.train), self.plan.normalise)

    def dialogues(self, ids: Sequence[str]) -> list[Conversation]:
        """Return dialogues as the model sees them: normalised."""
        return [self.normaliser.apply(dialogue) for dialogue in self.dataset.select(ids)]

    def _corpus(self, dialogues: Sequence[Conversation]) -> Corpus:
        builder, views = self.wiring.builder, self.wiring.views
        return Corpus(dialogues, builder, views, kernels=self.kernels, device=self.device)

    @cached_property
    def train(self) -> Corpus:
        """Training dialogues on the device."""
        return self._corpus(self.dialogues(self.split.train))

    @cached_property
    def validation(self) -> Corpus:
        """Validation dialogues on the device."""
        return self._corpus(self.dialogues(self.split.validation))

    @cached_property
    def validation_without(self) -> dict[str, Corpus]:
        """Modality -> validation dialogues on the device, as if it were absent."""
        dialogues = self.dialogues(self.split.validation)
        return {m: self._corpus([dialogue.without(m) for dialogue in dialogues]) for m in self.plan.modalities}

    @cached_property
    def test(self) -> Corpus:
        """Test dialogues on the device."""
        return self._corpus(self.dialogues(self.split.test))


def identity(
    plan: Plan,
    fingerprint: str,
    rule: SplitRule,
    *,
    seed: int,
    fold: int | None,
    protocol: Protocol,
    precision: Precision,
) -> Identity:
    """Return what decides a run.

    Args:
        plan: the recipe, filled for the data.
        fingerprint: of the dataset.
        rule: how the dialogues are split.
        seed, fold, protocol, precision: of the run.
    """
    return Identity(
        recipe=plan.plain(),
        data=fingerprint,
        seed=seed,
        fold=fold,
        protocol=protocol,
        split=rule.plain(),
        precision=precision,
        versions=versions(plan),
    )
