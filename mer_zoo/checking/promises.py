"""What the card of a module may promise, each by a check."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch

from mer_zoo.checking.capture import find_sync
from mer_zoo.checking.examples import ORDER, RAGGED, warm
from mer_zoo.checking.part import Verdict, close, difference
from mer_zoo.checking.subject import Subject
from mer_zoo.errors import MerZooError


@torch.no_grad()
def causal(subject: Subject) -> Verdict:
    """A dialogue's beginning gets the same whether or not the rest follows."""
    module = subject.build().double()
    scenario = "past" if subject.kind in ("layer", "edge_weight") else ""
    whole = subject.call(module, subject.arguments(subject.exact("eleven"), scenario))
    begun = subject.call(module, subject.arguments(subject.exact("eleven begins"), scenario))
    (count,) = subject.rows(scenario, "eleven begins")
    if not close(whole[:count], begun):
        apart = difference(whole[:count], begun)
        return f"promised `causal`, but later utterances change what earlier ones get, by {apart}."
    return None


@torch.no_grad()
def speaker_relabelling_invariant(subject: Subject) -> Verdict:
    """Other numbers for the same speakers change nothing."""
    module = subject.build().double()
    wanted = subject.outputs(module, subject.exact("eleven"))
    for scenario, output in subject.outputs(module, subject.exact("eleven renamed")).items():
        if not close(output, wanted[scenario]):
            apart = difference(output, wanted[scenario])
            return f"promised `speaker_relabelling_invariant`, but other speaker numbers change the result, by {apart}."
    return None


@torch.no_grad()
def utterance_permutation_equivariant(subject: Subject) -> Verdict:
    """Utterances in another order get the same."""
    module = subject.build().double()
    wanted = subject.outputs(module, subject.exact("eleven"))
    for scenario, output in subject.outputs(module, subject.exact("eleven reordered")).items():
        if not close(output, wanted[scenario][ORDER]):
            return (
                f"promised `utterance_permutation_equivariant`, but another order of the utterances changes what they "
                f"get, by {difference(output, wanted[scenario][ORDER])}."
            )
    return None


@torch.no_grad()
def modality_permutation_invariant(subject: Subject) -> Verdict:
    """Modalities may change places."""
    alike = Subject(subject.part, subject.world, subject.settings)
    alike.make_equal()
    module = alike.build()
    states, layout = alike.arguments(alike.batch(*RAGGED), "")
    wanted = module(states, layout)
    for first, second in combinations(states, 2):
        output = module({**states, first: states[second], second: states[first]}, layout)
        if not close(output, wanted):
            return (
                f"promised `modality_permutation_invariant`, but exchanging {first} and {second} changes the result, "
                f"by {difference(output, wanted)}."
            )
    return None


@torch.no_grad()
def modality_subset_safe(subject: Subject) -> Verdict:
    """Any modalities will do."""
    for count in range(1, len(subject.widths) + 1):
        for chosen in combinations(subject.widths, count):
            smaller = Subject(subject.part, subject.world, subject.settings)
            smaller.widths = {m: subject.widths[m] for m in chosen}
            smaller.sources = {m: subject.sources[m] for m in chosen}
            if any(isinstance(value, dict) for value in smaller.settings.values()):
                smaller.settings = {}  # settings by modality fit all of them only
            try:
                module = smaller.build()
                output = smaller.call(module, smaller.arguments(smaller.batch(*RAGGED), ""))
            except MerZooError as refusal:
                return f"promised `modality_subset_safe`, but refuses {' and '.join(chosen)}: {refusal}"
            if output.shape != (sum(smaller.rows("", *RAGGED)), module.out_width):
                return f"promised `modality_subset_safe`, but the shape is wrong for {' and '.join(chosen)}."
    return None


def capturable(subject: Subject) -> Verdict:
    """Nothing is read back to the host."""
    module, data = subject.build().train(), subject.batch("three", "lonely", kernel=subject.fixed)
    for edges in data.views.values():
        warm(edges)
    for _, arguments in subject.calls(data):
        if fault := find_sync(module, arguments):
            return fault
    return None


CHECKS: dict[str, Callable[[Subject], Verdict]] = {
    "capturable": capturable,
    "causal": causal,
    "modality_permutation_invariant": modality_permutation_invariant,
    "modality_subset_safe": modality_subset_safe,
    "speaker_relabelling_invariant": speaker_relabelling_invariant,
    "utterance_permutation_equivariant": utterance_permutation_equivariant,
}
