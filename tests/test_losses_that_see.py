"""Losses that see dialogues, speakers and label columns: alone, stacked, recorded, and held to a contract."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mer_zoo import registry
from mer_zoo.batch.output import Output
from mer_zoo.checking import check_part
from mer_zoo.checking.losses import layout_of
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.splits import split_dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe
from mer_zoo.parts.loss.dialogue_contrastive import DialogueContrastive
from mer_zoo.parts.loss.nll import negative_log_likelihood
from mer_zoo.training.loop import train, train_stacked
from mer_zoo.training.options import ComputeOptions
from mer_zoo.training.task import Task

MODEL = {"join": {"fusion": "concat"}, "classify": {"head": {"name": "mlp", "hidden": 8, "dropout": 0.0}}}


class EmotionShift(nn.Module):
    """Count an utterance more where its speaker felt otherwise in the turn before, and where a column says 1."""

    def __init__(self, *, weight: float = 2.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output, labels, layout, targets):
        before = F.pad(labels, (1, 0), value=-1)[:-1]
        speaker = F.pad(layout.speaker, (1, 0), value=-1)[:-1]
        shifted = (layout.position > 0) & (speaker == layout.speaker) & (before >= 0) & (before != labels)
        scale = (1 + self.weight * (shifted | (targets["stressed"] == 1))) * (labels >= 0)
        picked = -output.logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return (picked * scale).sum() / scale.sum().clamp(min=1)


class Mixing(nn.Module):
    """Compares utterances of different dialogues, though it sees which they are of."""

    def forward(self, output, labels, layout):
        alike = output.logits @ output.logits.T
        alike = alike * (labels.unsqueeze(1) >= 0) * (labels.unsqueeze(0) >= 0)
        return negative_log_likelihood(output.logits, labels) + 0.01 * alike.mean() + 0 * layout.position.sum()


class CountsRoom(nn.Module):
    """Divides by the room for utterances, which padding widens."""

    def forward(self, output, labels, layout):
        return negative_log_likelihood(output.logits, labels) / layout.rows.numel()


class AsksForMore(nn.Module):
    """Wants what no loss is given."""

    def forward(self, output, labels, speakers):
        return output.logits.sum()


class Reads(nn.Module):
    """Branches on the first dialogue's length."""

    def forward(self, output, labels, layout):
        scale = 2 if layout.lengths[0] > 3 else 1
        return scale * negative_log_likelihood(output.logits, labels)


def talks(columns):
    """Dialogues whose emotion follows from the features, with label columns beside it."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for number in range(12):
        count = 4 + number % 5
        labels = torch.randint(3, (count,), generator=draw)
        text = F.one_hot(labels, 3).float() + torch.randn(count, 3, generator=draw)
        targets = {name: torch.randint(classes, (count,), generator=draw).numpy() for name, classes in columns.items()}
        speakers = tuple("AB"[i % 2] for i in range(count))
        found.append(Conversation(f"d{number}", speakers, labels.numpy(), {"text": text.numpy()}, targets=targets))
    ids = [dialogue.id for dialogue in found]
    return Dataset(
        "talks", tuple(found), ("a", "b", "c"), {"train": ids[:8], "validation": ids[8:10], "test": ids[10:]}
    )


def task(data, loss, **more):
    training = {"epochs": 3, "dialogues_per_batch": 3, "learning_rate": 0.05, "select": "loss"}
    whole = {"title": "t", "model": MODEL, "loss": loss, "training": training, **more}
    plan = filling.fill(recipe.RecipeFile("t", recipe.Recipe.model_validate(whole)), data.widths)
    return Task("t", plan, data, split_dataset(data))


@pytest.fixture
def shift(monkeypatch):
    monkeypatch.setattr(registry.lookup, "_registered", dict(registry.lookup._registered))
    registry.register("loss", EmotionShift, name="emotion_shift", promises=("capturable",))
    return {"name": "emotion_shift", "weight": 3.0}


def test_a_loss_of_ones_own_fulfils_the_contract():
    check_part("loss", EmotionShift, promises=["capturable"])


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Mixing, "the gradient of a dialogue depends on what the model says of another"),
        (CountsRoom, r"rows that fill up a batch \(label -1, in no dialogue\) change the loss"),
        (
            AsksForMore,
            "forward asks for 'speakers', but beside output and labels a loss can be given layout and",
        ),
        (Reads, "a tensor's value is read on the host"),
    ],
)
def test_what_breaks_the_contract_is_found(cls, message):
    with pytest.raises(MerZooError, match=message):
        check_part("loss", cls, promises=["capturable"] if cls is Reads else [])


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("loss", ["emotion_shift", {"name": "dialogue_contrastive", "weight": 0.5}])
def test_stacked_seeds_see_what_they_see_alone(shift, loss, capture):
    data, more = talks({"stressed": 2}), {"tasks": {"stressed": 2}} if loss == "emotion_shift" else {}
    cell, options = task(data, loss, **more), ComputeOptions(capture=capture)
    for outcome in train_stacked(cell, [0, 1], options=options):
        alone = train(cell, outcome.result.seed, options=options).result.history
        for key in ("train_loss", "validation_loss"):
            assert [h[key] for h in alone] == pytest.approx([h[key] for h in outcome.result.history], abs=1e-5)


def test_the_column_that_is_named_is_the_one_that_counts(shift):
    """Of two columns a loss sees the one it asks for, and what is in it matters."""
    first, second = (
        train(task(data, shift, tasks={"stressed": 2}), 0).result.history
        for data in (talks({"stressed": 2, "calm": 2}), talks({"calm": 2, "stressed": 2}))  # drawn in this order
    )
    assert first[0]["train_loss"] != second[0]["train_loss"]


def test_a_column_that_is_missing_is_named(shift):
    with pytest.raises(MerZooError, match=r"loss.*no label column 'stressed'\. Name it under `tasks`"):
        train(task(talks({"stressed": 2}), shift), 0)
    with pytest.raises(MerZooError, match=r"has no label column 'stressed'\. Known: calm"):
        train(task(talks({"calm": 2}), shift, tasks={"stressed": 2}), 0)
    with pytest.raises(MerZooError, match="no head judges the task 'stressed'"):
        task(talks({"stressed": 2}), "nll", tasks={"stressed": 2})


def test_a_loss_that_asks_for_more_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(registry.lookup, "_registered", dict(registry.lookup._registered))
    registry.register("loss", AsksForMore, name="asks_for_more")
    with pytest.raises(MerZooError, match="loss/asks_for_more: forward asks for 'speakers'"):
        task(talks({}), "asks_for_more")


def test_dialogue_contrastive_is_the_sum_over_pairs_of_a_dialogue():
    lengths, temperature = (5, 1, 4), 0.5
    draw = torch.Generator().manual_seed(3)
    states = {m: torch.randn(10, 6, generator=draw) for m in ("text", "audio")}
    labels = torch.tensor([0, 1, 0, -1, 0, 1, 1, 0, 1, 2])
    logits = torch.randn(10, 3, generator=draw)
    expected = 0.0
    for x in states.values():
        z, anchors = F.normalize(x, dim=-1), []
        for dialogue in torch.arange(10).split(lengths):
            known = [i for i in dialogue.tolist() if labels[i] >= 0]
            for i in known:
                others = [a for a in known if a != i]
                partners = [p for p in others if labels[p] == labels[i]]
                if partners:
                    near = torch.stack([z[i] @ z[a] for a in others]) / temperature
                    logs = dict(zip(others, near.log_softmax(0), strict=True))
                    anchors.append(-sum(logs[p] for p in partners) / len(partners))
        expected += sum(anchors) / len(anchors) / len(states)
    loss = DialogueContrastive((4, 4, 1), weight=0.3, temperature=temperature)
    total = loss(Output(logits, {}, states), labels, layout_of(lengths))
    assert float(total) == pytest.approx(float(negative_log_likelihood(logits, labels) + 0.3 * expected), abs=1e-5)


def test_contrasting_brings_states_of_one_emotion_together():
    """Descending the loss alone, cosines within an emotion rise above those between emotions."""
    labels, layout = torch.tensor([0, 0, 1, 1, 2, 2]), layout_of((6,))
    states = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss, flat = DialogueContrastive((2, 2, 2), weight=1.0), torch.zeros(6, 3)
    for _ in range(200):
        (slope,) = torch.autograd.grad(loss(Output(flat, {}, {"text": states}), labels, layout), states)
        states = (states - 0.5 * slope).detach().requires_grad_()
    z = F.normalize(states, dim=-1)
    cosine, same = z @ z.T, labels.unsqueeze(0) == labels.unsqueeze(1)
    assert cosine[same].min() > cosine[~same].max() + 0.5
