"""What a batch may not change: results are those of each dialogue alone, whatever the company, padding or layout."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from mer_zoo import registry
from mer_zoo.batch.index import BatchIndex
from mer_zoo.checking.examples import RAGGED
from mer_zoo.checking.part import Skipped, Verdict, close, difference, first_line
from mer_zoo.checking.subject import Subject, cast, gradients
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.segment import Segment


def isolation(subject: Subject) -> Verdict:
    """What a dialogue gets does not depend on the others in its batch."""
    module = subject.build().double()
    companies = (("seven", "eleven", "three"), ("crowd", "eleven"), ("eleven", "lonely", "thirteen", "five"))
    with torch.no_grad():
        wanted = subject.outputs(module, subject.exact("eleven"))
        for names in companies:
            here = names.index("eleven")
            for scenario, output in subject.outputs(module, subject.exact(*names)).items():
                mine = output.split(subject.rows(scenario, *names))[here]
                if not close(mine, wanted[scenario]):
                    return (
                        f"leakage between dialogues: beside {len(names) - 1} others, a dialogue's output differs by "
                        f"{difference(mine, wanted[scenario])} from that alone. Attend, average and normalise within a "
                        "dialogue only."
                    )
    return None


def padding(subject: Subject) -> Verdict:
    """Rows and place holders that belong to no dialogue change neither results nor gradients."""
    module = subject.build().double()
    plain, padded = subject.exact(*RAGGED), cast(subject.world.padded(*RAGGED, kernel=subject.listed), Tensor.double)
    wanted = subject.outputs(module, plain)
    real = {}
    for scenario, output in subject.outputs(module, padded).items():
        if not output.isfinite().all():
            return "rows that belong to no dialogue give values that are not finite."
        real[scenario] = output[: sum(subject.rows(scenario, *RAGGED))]
        if not close(real[scenario], wanted[scenario]):
            return (
                f"rows that belong to no dialogue change the others' results by "
                f"{difference(real[scenario], wanted[scenario])}. Leave them out: `layout.is_utterance`, `edges.mask`."
            )
    if name := _other_gradient(gradients(module, real), gradients(module, wanted)):
        return f"rows that belong to no dialogue change the gradient of '{name}'."
    return None


def _other_gradient(ours: dict[str, Tensor | None], wanted: dict[str, Tensor | None]) -> str | None:
    for name, gradient in ours.items():
        slope = wanted[name]
        if gradient is not None and slope is not None and not close(gradient, slope, 1e-4):
            return name
    return None


def state_order(subject: Subject) -> Verdict:
    """A mapping's order says nothing: states are found by their modality's name."""
    if subject.kind != "fusion":
        return Skipped(f"a {subject.kind} has one input")
    module = subject.build()
    states, layout = subject.arguments(subject.batch(*RAGGED), "")
    if not close(module(dict(reversed(states.items())), layout), module(states, layout)):
        return "the order of the states' mapping changes the result. Find states by name, in the order of `widths`."
    return None


def kernels(subject: Subject) -> Verdict:
    """Every layout of the same edges gives the same results and gradients."""
    if subject.kind not in ("layer", "edge_weight"):
        return Skipped(f"a {subject.kind} has no edges")
    module = subject.build().double()
    wanted: dict[str, Tensor] = {}
    slopes: dict[str, Tensor | None] = {}
    others = [registry.load(card) for card in registry.cards("kernel") if card.name != "segment"]
    for kernel in (Segment, *others):
        outputs = subject.outputs(module, subject.exact(*RAGGED, kernel=kernel))
        found = gradients(module, outputs)
        if kernel is Segment:
            wanted, slopes = {s: y.detach() for s, y in outputs.items()}, found
        for scenario, output in outputs.items():
            if not close(output, wanted[scenario]):
                return (
                    f"kernel {kernel.__name__} gives another result than Segment, by "
                    f"{difference(output, wanted[scenario])}. Off the edges, edge tensors are arbitrary: use "
                    "`edges.mask` before a sum."
                )
        if name := _other_gradient(found, slopes):
            return f"kernel {kernel.__name__} gives another gradient of '{name}' than Segment."
    return None


def stacking(subject: Subject) -> Verdict:
    """Stacked weights and batches under `torch.func.vmap` give what a loop gives, if no promise excepts the part."""
    own = getattr(subject.build(), "stackable", None)  # where that depends on settings
    unstackable = "unstackable" in subject.part.promises if own is None else not own
    try:
        fault = _stack(subject)
    except MerZooError:
        raise
    except Exception as error:
        return (
            None
            if unstackable
            else (
                f"torch.func.vmap over stacked weights fails: {first_line(error)} Avoid operations without a batching "
                "rule, or promise `unstackable` on the card."
            )
        )
    if unstackable and not fault:
        where = "the card says `unstackable`" if own is None else "`stackable` is False"
        return f"{where}, but torch.func.vmap works. Take it {'off the card' if own is None else 'back'}."
    return None if unstackable else fault


def _stack(subject: Subject) -> str | None:
    whole = subject.world.corpus(subject.fixed)
    orders = (("seven", "three", "eleven"), ("eleven", "seven", "three"))
    plans = [whole.index(subject.world.numbers(*names)) for names in orders]
    index = stacked([plan.tensors() for plan in plans])
    modules = [subject.build(seed) for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(modules)
    skeleton = copy.deepcopy(modules[0]).to("meta")

    def one(weights: dict[str, Tensor], index: dict[str, Any]) -> dict[str, Tensor]:
        data = whole.batch(BatchIndex(**index))
        return {s: torch.func.functional_call(skeleton, weights, given) for s, given in subject.calls(data)}

    together = torch.func.vmap(one)({**parameters, **buffers}, index)
    for i, (module, plan) in enumerate(zip(modules, plans, strict=True)):
        for scenario, arguments in subject.calls(whole.batch(plan)):
            alone = module(*arguments)
            if not close(together[scenario][i], alone, 1e-4):
                return (
                    f"stacked weights give another result than the same weights alone, by "
                    f"{difference(together[scenario][i], alone)}."
                )
    skeleton.train()
    torch.func.vmap(one, randomness="different")({**parameters, **buffers}, index)
    return None


def stacked(indices: list[Any]) -> Any:
    """Stack tensors that lie at the same places of nested mappings."""
    if isinstance(indices[0], dict):
        return {key: stacked([index[key] for index in indices]) for key in indices[0]}
    return torch.stack(indices)
