"""The contract of encoders, edge weights, layers, fusions and heads."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from mer_zoo import registry
from mer_zoo.batch.index import BatchIndex
from mer_zoo.checking import examples
from mer_zoo.checking.capture import watch_for_syncs
from mer_zoo.checking.examples import batch
from mer_zoo.checking.part import Broken, Finding, NotHere, Part, Trial, cast, close, difference, run
from mer_zoo.corpus import ConversationBatch
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.segment import Segment

RAGGED = ("seven", "three", "eleven")
EVERY = (*RAGGED, "lonely", "monologue", "crowd")


def findings(part: Part) -> Iterator[Finding]:
    """Run the suite; stops at once when the part cannot even be made or called."""
    trial: list[Trial] = []
    first = run("construction", lambda: trial.append(_made(part)))
    yield first
    if not first.fine:
        return
    second = run("shape", lambda: shape(trial[0]))
    yield second
    if not second.fine:
        return
    for name, check in CHECKS.items():
        yield run(name, lambda check=check: check(trial[0]))  # type: ignore[misc]
    for promise in part.promises:
        proof = PROOFS.get(promise)
        if proof is not None:
            yield run(f"promise {promise}", lambda proof=proof: proof(trial[0]))  # type: ignore[misc]
    for settings in part.variants():
        label = ", ".join(f"{key}: {value}" for key, value in settings.items())
        yield run(f"setting {label}", lambda settings=settings: variant(trial[0], settings))  # type: ignore[misc]


def _made(part: Part) -> Trial:
    trial = Trial(part)
    trial.build()
    return trial


def exact(*names: str, kernel: type[Kernel] | None = None) -> ConversationBatch:
    """Return a batch in float64, where equal means equal."""
    return cast(batch(*names, kernel=kernel), Tensor.double)


def shape(trial: Trial) -> None:
    """Declared width, right number of rows, the type of the input."""
    module = trial.build()
    out_width: object = examples.CLASSES
    if trial.kind in ("encoder", "layer", "fusion"):
        out_width = getattr(module, "out_width", None)
        if not isinstance(out_width, int) or isinstance(out_width, bool) or out_width < 1:
            raise Broken(f"`self.out_width` must be the width of the output, a positive int; it is {out_width!r}.")
    for names in (EVERY, ("lonely",), ("monologue",), ("crowd",)):
        data = batch(*names)
        for scenario, arguments in _scenarios(trial, data):
            with torch.no_grad():
                output = trial.call(module, arguments)
            count = sum(trial.rows(scenario, *names))
            wanted = (count,) if trial.kind == "edge_weight" else (count, out_width)
            if tuple(output.shape) != wanted:
                what = "one number per edge" if trial.kind == "edge_weight" else "[rows, width]"
                hint = " The axes look swapped." if tuple(output.shape) == wanted[::-1] != wanted else ""
                raise Broken(f"output has shape {list(output.shape)}, but must have {list(wanted)}: {what}.{hint}")
            if output.dtype != torch.float32:
                raise Broken(f"output is {output.dtype} for float32 input; it must keep the type.")


def _scenarios(trial: Trial, data: ConversationBatch) -> Iterator[tuple[str, tuple]]:
    for scenario in trial.scenarios:
        yield scenario, trial.arguments(data, scenario)


def finite(trial: Trial) -> None:
    """No NaN or infinity, whoever speaks and however little; nor for large and for zero features."""
    module = trial.build()
    for scale in (1.0, 0.0, 100.0):
        for names in (EVERY, ("lonely",), ("monologue",), ("crowd",)):
            data = cast(batch(*names), lambda x, scale=scale: (x * scale).requires_grad_())  # type: ignore[misc]
            outputs = trial.outputs(module, data)
            for output in outputs.values():
                if not output.isfinite().all():
                    raise Broken(f"output is not finite for {_those(names)} with features times {scale:g}.")
            for name, gradient in trial.parameters_by_gradient(module, outputs):
                if gradient is not None and not gradient.isfinite().all():
                    raise Broken(f"gradient of '{name}' is not finite for {_those(names)}, features times {scale:g}.")
            for path, x in examples.tensors(data.features):
                if x.grad is not None and not x.grad.isfinite().all():
                    raise Broken(f"gradient of input {path} is not finite for {_those(names)}, times {scale:g}.")


def _those(names: tuple[str, ...]) -> str:
    return {"lonely": "one utterance", "monologue": "one speaker", "crowd": "thirty speakers"}.get(
        names[0], "dialogues"
    )


def gradients(trial: Trial) -> None:
    """Every parameter learns, but for those the card names as dead, and these are dead indeed."""
    module = trial.build()
    alive: set[str] = set()
    for mode in (False, True):
        torch.manual_seed(0)
        outputs = trial.outputs(module.train(mode), batch(*RAGGED))
        alive |= {
            name for name, g in trial.parameters_by_gradient(module, outputs) if g is not None and bool(g.abs().sum())
        }
    names = [name for name, _ in module.named_parameters()]
    dead = {pattern: fnmatch.filter(names, pattern) for pattern in trial.part.dead}
    stuck = [name for name in names if name not in alive and not any(name in found for found in dead.values())]
    faults = []
    if stuck:
        faults.append(
            f"no gradient reaches {_quoted(stuck)}. Use it, or list it under `dead` on the card if it is so by design."
        )
    for pattern, found in dead.items():
        if not found:
            faults.append(f"`dead: {pattern}` matches no parameter. Take it off the card.")
        elif living := [name for name in found if name in alive]:
            faults.append(f"`dead: {pattern}`, but a gradient reaches {_quoted(living)}. Take it off the card.")
    if faults:
        raise Broken(" ".join(faults))


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def untouched(trial: Trial) -> None:
    """Forward and backward leave the inputs as they were."""
    module, data = trial.build().train(), batch(*RAGGED)
    for _, arguments in _scenarios(trial, data):
        before = {path: x.detach().clone() for path, x in examples.tensors(arguments)}
        output = trial.call(module, arguments)
        if output.requires_grad:
            output.sum().backward()
        for path, x in examples.tensors(arguments):
            if path in before and not torch.equal(before[path], x.detach()):
                raise Broken(f"forward changes its input {path}. Work on a copy: no in-place operations on inputs.")


def determinism(trial: Trial) -> None:
    """A seed decides weights and dropout; in evaluation nothing is random."""
    first, second = trial.build(3), trial.build(3)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        if not torch.equal(a, b):
            raise Broken(f"two instances made with the same seed differ in '{name}'. Draw from torch's generator.")
    data = batch(*RAGGED)
    for mode in (False, True):
        results = []
        for attempt in range(2):
            torch.manual_seed(5 if mode else attempt)
            results.append(trial.outputs(first.train(mode), data))
        for scenario, output in results[0].items():
            if not torch.equal(output, results[1][scenario]):
                raise Broken(
                    "training with the same seed gives different outputs."
                    if mode
                    else "two calls in evaluation mode give different outputs; only training may be random."
                )
        first = trial.build(3)  # without what training may have left behind


def saving(trial: Trial) -> None:
    """Weights survive a file: another instance that loads them computes the same."""
    first, second = trial.build(1), trial.build(2)
    second.load_state_dict(safetensors.torch.load(safetensors.torch.save(dict(first.state_dict()))))
    data = batch(*RAGGED)
    wanted = trial.outputs(first, data)
    for scenario, output in trial.outputs(second, data).items():
        if not close(output, wanted[scenario], 1e-6):
            raise Broken("after loading another instance's weights the outputs differ. Keep all state in parameters.")


def isolation(trial: Trial) -> None:
    """What a dialogue gets does not depend on the others in its batch."""
    module = trial.build().double()
    wanted = trial.outputs(module, exact("eleven"))
    companies = (("seven", "eleven", "three"), ("crowd", "eleven"), ("eleven", "lonely", "thirteen", "five"))
    for names in companies:
        here = names.index("eleven")
        for scenario, output in trial.outputs(module, exact(*names)).items():
            mine = output.split(trial.rows(scenario, *names))[here]
            if not close(mine, wanted[scenario]):
                raise Broken(
                    f"leakage between dialogues: beside {len(names) - 1} others, a dialogue's output differs by "
                    f"{difference(mine, wanted[scenario])} from that alone. Attend, average and normalise within a "
                    "dialogue only."
                )


def padding(trial: Trial) -> None:
    """Rows and place holders that belong to no dialogue change neither results nor gradients."""
    module = trial.build().double()
    plain, padded = exact(*RAGGED), cast(examples.padded(*RAGGED), Tensor.double)
    wanted = trial.outputs(module, plain)
    outputs = trial.outputs(module, padded)
    real = {}
    for scenario, output in outputs.items():
        if not output.isfinite().all():
            raise Broken("rows that belong to no dialogue give values that are not finite.")
        real[scenario] = output[: sum(trial.rows(scenario, *RAGGED))]
        if not close(real[scenario], wanted[scenario]):
            raise Broken(
                f"rows that belong to no dialogue change the others' results by "
                f"{difference(real[scenario], wanted[scenario])}. Leave them out: `dialogues.is_utterance`, "
                "`edges.mask`."
            )
    slopes = {n: None if g is None else g.clone() for n, g in trial.parameters_by_gradient(module, wanted)}
    for name, gradient in trial.parameters_by_gradient(module, real):
        slope = slopes[name]
        if gradient is not None and slope is not None and not close(gradient, slope, 1e-4):
            raise Broken(f"rows that belong to no dialogue change the gradient of '{name}'.")


def kernels(trial: Trial) -> None:
    """Every layout of the same edges gives the same results and gradients."""
    if trial.kind not in ("layer", "edge_weight"):
        raise NotHere(f"a {trial.kind} has no edges")
    module = trial.build().double()
    wanted: dict[str, Tensor] = {}
    slopes: dict[str, Tensor | None] = {}
    others = [registry.load(card) for card in registry.cards("kernel") if card.name != "segment"]
    for kernel in (Segment, *others):
        outputs = trial.outputs(module, exact(*RAGGED, kernel=kernel))
        found = dict(trial.parameters_by_gradient(module, outputs))
        if kernel is Segment:
            wanted = {s: y.detach() for s, y in outputs.items()}
            slopes = {n: None if g is None else g.clone() for n, g in found.items()}
        for scenario, output in outputs.items():
            if not close(output, wanted[scenario]):
                raise Broken(
                    f"kernel {kernel.__name__} gives another result than Segment, by "
                    f"{difference(output, wanted[scenario])}. Off the edges, edge tensors are arbitrary: use "
                    "`edges.mask` before a sum."
                )
        for name, gradient in found.items():
            slope = slopes[name]
            if gradient is not None and slope is not None and not close(gradient, slope, 1e-4):
                raise Broken(f"kernel {kernel.__name__} gives another gradient of '{name}' than Segment.")


def precision(trial: Trial) -> None:
    """float64 and bfloat16 work: as types of all numbers, and bfloat16 by autocast."""
    data = batch(*RAGGED)
    wanted = trial.outputs(trial.build(), data)
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.bfloat16, 0.25)):
        module = trial.build().to(dtype)
        outputs = trial.outputs(module, cast(data, lambda x, dtype=dtype: x.to(dtype)))  # type: ignore[misc]
        _agree(trial, module, outputs, wanted, str(dtype), tolerance)
        for output in outputs.values():
            if output.dtype != dtype:
                raise Broken(f"{dtype}: output is {output.dtype}. Convert masks and constants by `.to(x.dtype)`.")
    module = trial.build()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = trial.outputs(module, data)
    _agree(trial, module, outputs, wanted, "bfloat16 autocast", 0.25)


def _agree(trial: Trial, module: nn.Module, outputs: dict, wanted: dict, what: str, tolerance: float) -> None:
    for scenario, output in outputs.items():
        if not close(output, wanted[scenario], tolerance):
            raise Broken(f"{what}: output differs from float32 by {difference(output, wanted[scenario])}.")
    for name, gradient in trial.parameters_by_gradient(module, outputs):
        if gradient is not None and not gradient.isfinite().all():
            raise Broken(f"{what}: gradient of '{name}' is not finite.")


def cuda(trial: Trial) -> None:
    """The GPU computes what the CPU computes."""
    if not torch.cuda.is_available():
        raise NotHere("no GPU here")
    wanted = trial.outputs(trial.build(), batch(*RAGGED))
    outputs = trial.outputs(trial.build().cuda(), batch(*RAGGED, device="cuda"))
    for scenario, output in outputs.items():
        if not close(output.cpu(), wanted[scenario], 1e-3):
            raise Broken(f"CUDA gives another result than CPU, by {difference(output.cpu(), wanted[scenario])}.")


def stacking(trial: Trial) -> None:
    """Stacked weights and batches under `torch.func.vmap` give what a loop gives, if no promise excepts the part."""
    try:
        _stack(trial)
    except MerZooError:
        raise
    except Exception as error:
        if "unstackable" in trial.part.promises:
            return
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Broken(
            f"torch.func.vmap over stacked weights fails: {reason} Avoid operations without a batching rule, or "
            "promise `unstackable` on the card."
        ) from error
    if "unstackable" in trial.part.promises:
        raise Broken("the card says `unstackable`, but torch.func.vmap works. Take it off the card.")


def _stack(trial: Trial) -> None:
    whole = examples.corpus(Dense)
    orders = (("seven", "three", "eleven"), ("eleven", "seven", "three"))
    plans = [whole.index(examples.numbers(*names)) for names in orders]
    indices = [
        {"utterances": p.utterances, "dialogues": p.dialogues, "rows": p.rows, "cells": p.cells, "edges": p.edges}
        for p in plans
    ]
    index = _stacked(indices)
    modules = [trial.build(seed) for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(modules)
    skeleton = copy.deepcopy(modules[0]).to("meta")

    def one(weights: dict, index: dict) -> dict[str, Tensor]:
        data = whole.batch(BatchIndex(**index))
        return {s: torch.func.functional_call(skeleton, weights, trial.arguments(data, s)) for s in trial.scenarios}

    together = torch.func.vmap(one)({**parameters, **buffers}, index)
    for i, (module, plan) in enumerate(zip(modules, plans, strict=True)):
        data = whole.batch(plan)
        for scenario in trial.scenarios:
            alone = module(*trial.arguments(data, scenario))
            if not close(together[scenario][i], alone, 1e-4):
                raise Broken(
                    f"stacked weights give another result than the same weights alone, by "
                    f"{difference(together[scenario][i], alone)}."
                )
    skeleton.train()
    torch.func.vmap(one, randomness="different")({**parameters, **buffers}, index)


def _stacked(indices: list) -> Any:
    if isinstance(indices[0], dict):
        return {key: _stacked([index[key] for index in indices]) for key in indices[0]}
    return torch.stack(indices)


def variant(trial: Trial, settings: dict) -> None:
    """Another value of a setting runs forward and backward, or is refused by a message."""
    try:
        module = trial.build(**settings)
        outputs = trial.outputs(module.train(), batch(*EVERY))
    except MerZooError as refusal:
        raise NotHere(f"refused here: {refusal}") from None
    for scenario, output in outputs.items():
        count = sum(trial.rows(scenario, *EVERY))
        if output.shape[0] != count:
            raise Broken(f"output has {output.shape[0]} rows, but must have {count}.")
        if not output.isfinite().all():
            raise Broken("output is not finite.")
    for name, gradient in trial.parameters_by_gradient(module, outputs):
        if gradient is not None and not gradient.isfinite().all():
            raise Broken(f"gradient of '{name}' is not finite.")


def causal(trial: Trial) -> None:
    """A dialogue's beginning gets the same whether or not the rest follows."""
    module = trial.build().double()
    scenario = "past" if trial.kind in ("layer", "edge_weight") else ""
    with torch.no_grad():
        whole = trial.call(module, trial.arguments(exact("eleven"), scenario))
        begun = trial.call(module, trial.arguments(exact("eleven begins"), scenario))
    (count,) = trial.rows(scenario, "eleven begins")
    if not close(whole[:count], begun):
        raise Broken(
            f"promised `causal`, but later utterances change what earlier ones get, by "
            f"{difference(whole[:count], begun)}."
        )


def speaker_relabelling_invariant(trial: Trial) -> None:
    """Other numbers for the same speakers change nothing."""
    module = trial.build().double()
    wanted = trial.outputs(module, exact("eleven"))
    for scenario, output in trial.outputs(module, exact("eleven renamed")).items():
        if not close(output, wanted[scenario]):
            raise Broken(
                f"promised `speaker_relabelling_invariant`, but other speaker numbers change the result, by "
                f"{difference(output, wanted[scenario])}."
            )


def utterance_permutation_equivariant(trial: Trial) -> None:
    """Utterances in another order get the same."""
    module = trial.build().double()
    wanted = trial.outputs(module, exact("eleven"))
    for scenario, output in trial.outputs(module, exact("eleven reordered")).items():
        if not close(output, wanted[scenario][examples.ORDER]):
            raise Broken(
                f"promised `utterance_permutation_equivariant`, but another order of the utterances changes what they "
                f"get, by {difference(output, wanted[scenario][examples.ORDER])}."
            )


def modality_permutation_invariant(trial: Trial) -> None:
    """Modalities may change places."""
    trial = Trial(trial.part)
    trial.widths, trial.sources = dict(examples.WIDTHS), {"text": "text", "audio": "audio16", "visual": "visual16"}
    module, data = trial.build(), batch(*RAGGED)
    states, dialogues = trial.arguments(data, "")
    wanted = module(states, dialogues)
    for first, second in combinations(states, 2):
        output = module({**states, first: states[second], second: states[first]}, dialogues)
        if not close(output, wanted):
            raise Broken(
                f"promised `modality_permutation_invariant`, but exchanging {first} and {second} changes the result, "
                f"by {difference(output, wanted)}."
            )


def modality_subset_safe(trial: Trial) -> None:
    """Any modalities will do."""
    for count in range(1, len(trial.widths) + 1):
        for chosen in combinations(trial.widths, count):
            smaller = Trial(trial.part)
            smaller.widths = {m: trial.widths[m] for m in chosen}
            smaller.sources = {m: trial.sources[m] for m in chosen}
            try:
                module = smaller.build()
                output = smaller.call(module, smaller.arguments(batch(*RAGGED), ""))
            except MerZooError as refusal:
                raise Broken(
                    f"promised `modality_subset_safe`, but refuses {' and '.join(chosen)}: {refusal}"
                ) from None
            if output.shape != (sum(smaller.rows("", *RAGGED)), module.out_width):
                raise Broken(f"promised `modality_subset_safe`, but the shape is wrong for {' and '.join(chosen)}.")


def capturable(trial: Trial) -> None:
    """Nothing is read back to the host."""
    module, data = trial.build().train(), batch(*RAGGED, kernel=Dense)
    for edges in data.views.values():
        examples.warm(edges)
    for _, arguments in _scenarios(trial, data):
        watch_for_syncs(module, arguments)


def state_order(trial: Trial) -> None:
    """A mapping's order says nothing: states are found by their modality's name."""
    if trial.kind != "fusion":
        raise NotHere(f"a {trial.kind} has one input")
    module = trial.build()
    states, dialogues = trial.arguments(batch(*RAGGED), "")
    if not close(module(dict(reversed(states.items())), dialogues), module(states, dialogues)):
        raise Broken(
            "the order of the states' mapping changes the result. Find states by name, in the order of `widths`."
        )


CHECKS: dict[str, Callable[[Trial], None]] = {
    "finite": finite,
    "gradients": gradients,
    "inputs untouched": untouched,
    "determinism": determinism,
    "saving": saving,
    "isolation": isolation,
    "padding": padding,
    "order of states": state_order,
    "kernels": kernels,
    "precision": precision,
    "cuda": cuda,
    "stacking": stacking,
}
PROOFS: dict[str, Callable[[Trial], None]] = {
    "capturable": capturable,
    "causal": causal,
    "modality_permutation_invariant": modality_permutation_invariant,
    "modality_subset_safe": modality_subset_safe,
    "speaker_relabelling_invariant": speaker_relabelling_invariant,
    "utterance_permutation_equivariant": utterance_permutation_equivariant,
}
