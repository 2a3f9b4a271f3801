"""The head that follows moods and what all share: exact where it says so, and better for knowing who speaks."""

import numpy as np
import pytest
import torch

from mer_zoo.batch.index import Layout
from mer_zoo.data.ceiling import posterior
from mer_zoo.data.synthetic import synthetic
from mer_zoo.parts.head.factorial_chains import PACE, FactorialChains


def layout_of(dialogue):
    turns = torch.arange(len(dialogue))
    return Layout(torch.tensor(dialogue.speaker_index), turns, torch.tensor([len(dialogue)]), turns[None], turns)


def knowing(model):
    """Return the head with the parameters that the dialogues were drawn from."""
    means = torch.tensor(np.concatenate(list(model.means.values()), 1))
    head = FactorialChains(means.shape[1], model.emotions, model.speakers).double()
    new = 1 - model.inertia - model.contagion
    moves = torch.tensor([model.inertia, model.contagion, new]).clamp(min=1e-12).log() / PACE
    lasts = torch.logit(torch.tensor(model.persistence, dtype=torch.float64), eps=1e-12) / PACE
    values = {"prototypes": means, "imitation": torch.tensor(model.distractor), "moves": moves, "lasts": lasts}
    head.load_state_dict(head.state_dict() | values)
    return head


def judged(data, head):
    for dialogue in data.select(data.splits["test"]):
        x = torch.tensor(np.concatenate(list(dialogue.features.values()), 1), dtype=torch.float64)
        with torch.no_grad():
            yield head(x, layout_of(dialogue)).softmax(-1).numpy()


@pytest.mark.parametrize("speakers", [2, 3])
def test_exact_while_the_hidden_state_stays(speakers):
    data = synthetic(dialogues=(1, 1, 6), speakers=speakers, contagion=0, persistence=1)
    exact = posterior(data.model, data.select(data.splits["test"]))
    for found, wanted in zip(judged(data, knowing(data.model)), exact, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_nearly_as_right_as_exact_inference_where_it_changes_and_moods_are_caught():
    data = synthetic(dialogues=(1, 1, 60))
    labels = np.concatenate([dialogue.labels for dialogue in data.select(data.splits["test"])])
    found = np.concatenate(list(judged(data, knowing(data.model)))).argmax(1)
    assert (found == labels).mean() > data.bayes().realised - 0.04
