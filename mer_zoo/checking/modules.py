"""The contract of encoders, edge weights, layers, fusions and heads."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from functools import cache, partial

import safetensors.torch
import torch
from torch import Tensor, nn

from mer_zoo.checking import batching, promises, sensitivity
from mer_zoo.checking.examples import EVERY, OTHER, RAGGED, THIRD, tensors
from mer_zoo.checking.part import Checks, Part, Skipped, Verdict, attempt, close, difference
from mer_zoo.checking.subject import Subject, cast, gradients, off_default, those


def checks(part: Part) -> Checks:
    """Return the suite: most of it on the defaults, and again in another world with settings off their defaults."""

    @cache
    def subjects() -> tuple[Subject, Subject]:
        return Subject(part), off_default(part)

    def once(check: Callable[[Subject], Verdict]) -> Verdict:
        return check(subjects()[0])

    def both(check: Callable[[Subject], Verdict]) -> Verdict:
        first, second = subjects()
        if (verdict := check(first)) is not None:
            return verdict
        verdict = attempt(lambda: check(second))
        return f"{second}: {verdict}" if isinstance(verdict, str) else verdict

    found: Checks = {
        "construction": lambda: construction(Subject(part)),
        "shape": lambda: shape(Subject(part)),
        "other facts": lambda: other_facts(part),
    }
    found |= {name: partial(both, check) for name, check in TWICE.items()}
    found |= {name: partial(once, check) for name, check in ONCE.items()}
    for promise in part.promises:
        if promise in promises.CHECKS:
            runs = once if promise == "capturable" else both
            found[f"promise {promise}"] = partial(runs, promises.CHECKS[promise])
    default = sensitivity.Default(part, partial(learning, names=("five", "lonely", "absent")))
    return {**found, **part.setting_checks(default.known, default.effect)}


def construction(subject: Subject) -> Verdict:
    """An `nn.Module`, made of the facts and the defaults."""
    subject.build()
    return None


def shape(subject: Subject) -> Verdict:
    """Declared width, right number of rows, the type of the input."""
    module = subject.build()
    for names in (EVERY, ("lonely",), ("monologue",)):
        with torch.no_grad():
            outputs = subject.outputs(module, subject.batch(*names))
        if fault := form(subject, module, outputs, *names):
            return fault
    return None


def form(subject: Subject, module: nn.Module, outputs: dict[str, Tensor], *names: str) -> str | None:
    """Return what is wrong with the shape or type of the outputs for some dialogues."""
    out_width: object = subject.world.classes
    if subject.kind in ("encoder", "layer", "fusion"):
        out_width = getattr(module, "out_width", None)
        if not isinstance(out_width, int) or isinstance(out_width, bool) or out_width < 1:
            return f"`self.out_width` must be the width of the output, a positive int; it is {out_width!r}."
    for scenario, output in outputs.items():
        count = sum(subject.rows(scenario, *names))
        wanted = (count,) if subject.kind == "edge_weight" else (count, out_width)
        if hasattr(module, "targets"):  # a head that judges something else of utterances, as its targets do
            wanted = (count, *output.shape[1:])
        if tuple(output.shape) != wanted:
            what = "one number per edge" if subject.kind == "edge_weight" else "[rows, width]"
            hint = " The axes look swapped." if tuple(output.shape) == wanted[::-1] != wanted else ""
            return f"output has shape {list(output.shape)}, but must have {list(wanted)}: {what}.{hint}"
        if output.dtype != torch.float32:
            return f"output is {output.dtype} for float32 input; it must keep the type."
    return None


def other_facts(part: Part) -> Verdict:
    """Other widths, relations, classes, speakers and modalities, and a dialogue of 130 turns, by default settings."""
    for world in (OTHER, THIRD):
        subject = Subject(part, world)
        check = partial(_shape_of_long, subject) if world is OTHER else partial(shape, subject)
        fault = attempt(check)
        if fault:
            return f"{subject}: {fault}"
    return None


def _shape_of_long(subject: Subject) -> Verdict:
    if fault := shape(subject):
        return fault
    module, names = subject.build(), ("long", "five")
    outputs = subject.outputs(module, subject.batch(*names))
    return form(subject, module, outputs, *names) or not_finite(module, outputs, those(names))


def finite(subject: Subject) -> Verdict:
    """No NaN or infinity, whoever speaks and however little; nor for large, zero and absent features."""
    module = subject.build()
    for scale in (1.0, 0.0, 100.0):
        for names in (EVERY, ("lonely",)):
            data = cast(subject.batch(*names), lambda x, scale=scale: (x * scale).requires_grad_())  # type: ignore[misc]
            case = f"{those(names)} with features times {scale:g}"
            if fault := not_finite(module, subject.outputs(module, data), case):
                return fault
            for path, x in tensors(data.features):
                if x.grad is not None and not x.grad.isfinite().all():
                    return f"gradient of input {path} is not finite for {case}."
    return None


def not_finite(module: nn.Module, outputs: dict[str, Tensor], case: str) -> str | None:
    """Return which of the outputs or of the parameters' gradients is not finite."""
    for output in outputs.values():
        if not output.isfinite().all():
            return f"output is not finite for {case}."
    for name, gradient in gradients(module, outputs).items():
        if gradient is not None and not gradient.isfinite().all():
            return f"gradient of '{name}' is not finite for {case}."
    return None


def learning(subject: Subject, names: tuple[str, ...] = RAGGED) -> Verdict:
    """Every parameter learns, but for those the card names as dead, and these are dead indeed."""
    module = subject.build()
    alive: set[str] = set()
    for mode in (False, True):
        torch.manual_seed(0)
        outputs = subject.outputs(module.train(mode), subject.batch(*names))
        if fault := form(subject, module, outputs, *names) or not_finite(module, outputs, "dialogues"):
            return fault
        alive |= {n for n, p in module.named_parameters() if p.grad is not None and bool(p.grad.abs().sum())}
    every = [name for name, _ in module.named_parameters()]
    dead = {pattern: fnmatch.filter(every, pattern) for pattern in subject.part.dead}
    stuck = [name for name in every if name not in alive and not any(name in found for found in dead.values())]
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
    return " ".join(faults) or None


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def untouched(subject: Subject) -> Verdict:
    """Forward and backward leave the inputs as they were."""
    module = subject.build().train()
    for _, arguments in subject.calls(subject.batch(*RAGGED)):
        before = {path: x.detach().clone() for path, x in tensors(arguments)}
        output = subject.call(module, arguments)
        if output.requires_grad:
            output.sum().backward()
        for path, x in tensors(arguments):
            if path in before and not torch.equal(before[path], x.detach()):
                return f"forward changes its input {path}. Work on a copy: no in-place operations on inputs."
    return None


def determinism(subject: Subject) -> Verdict:
    """A seed decides weights and dropout; in evaluation nothing is random."""
    first, second = subject.build(3), subject.build(3)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        if not torch.equal(a, b):
            return f"two instances made with the same seed differ in '{name}'. Draw from torch's generator."
    data = subject.batch(*RAGGED)
    for mode in (False, True):
        results = []
        for seed in (5, 5 if mode else 6):
            torch.manual_seed(seed)
            with torch.no_grad():
                results.append(subject.outputs(first.train(mode), data))
        for scenario, output in results[0].items():
            if not torch.equal(output, results[1][scenario]):
                return (
                    "training with the same seed gives different outputs."
                    if mode
                    else "two calls in evaluation mode give different outputs; only training may be random."
                )
        first = subject.build(3)  # without what training may have left behind
    return None


def saving(subject: Subject) -> Verdict:
    """Weights survive a file: another instance that loads them computes the same."""
    first, second = subject.build(1), subject.build(2)
    second.load_state_dict(safetensors.torch.load(safetensors.torch.save(dict(first.state_dict()))))
    data = subject.batch(*RAGGED)
    with torch.no_grad():
        wanted = subject.outputs(first, data)
        for scenario, output in subject.outputs(second, data).items():
            if not close(output, wanted[scenario], 1e-6):
                return "after loading another instance's weights the outputs differ. Keep all state in parameters."
    return None


def precision(subject: Subject) -> Verdict:
    """float64 and bfloat16 work: as types of all numbers, and bfloat16 by autocast."""
    data = subject.batch(*RAGGED)
    wanted = subject.outputs(subject.build(), data)
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.bfloat16, 0.25)):
        module = subject.build().to(dtype)
        outputs = subject.outputs(module, cast(data, lambda x, dtype=dtype: x.to(dtype)))  # type: ignore[misc]
        if fault := _disagreement(module, outputs, wanted, str(dtype), tolerance):
            return fault
        for output in outputs.values():
            if output.dtype != dtype:
                return f"{dtype}: output is {output.dtype}. Convert masks and constants by `.to(x.dtype)`."
    module = subject.build()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = subject.outputs(module, data)
    return _disagreement(module, outputs, wanted, "bfloat16 autocast", 0.25)


def _disagreement(
    module: nn.Module, outputs: dict[str, Tensor], wanted: dict[str, Tensor], what: str, tolerance: float
) -> str | None:
    for scenario, output in outputs.items():
        if not close(output, wanted[scenario], tolerance):
            return f"{what}: output differs from float32 by {difference(output, wanted[scenario])}."
    for name, gradient in gradients(module, outputs).items():
        if gradient is not None and not gradient.isfinite().all():
            return f"{what}: gradient of '{name}' is not finite."
    return None


def cuda(subject: Subject) -> Verdict:
    """The GPU computes what the CPU computes."""
    if not torch.cuda.is_available():
        return Skipped("no GPU here")
    wanted = subject.outputs(subject.build(), subject.batch(*RAGGED))
    outputs = subject.outputs(subject.build().cuda(), subject.batch(*RAGGED, device="cuda"))
    for scenario, output in outputs.items():
        if not close(output.cpu(), wanted[scenario], 1e-3):
            return f"CUDA gives another result than CPU, by {difference(output.cpu(), wanted[scenario])}."
    return None


TWICE: dict[str, Callable[[Subject], Verdict]] = {
    "gradients": learning,
    "inputs": sensitivity.inputs,
    "edges": sensitivity.edges,
    "isolation": batching.isolation,
    "padding": batching.padding,
    "order of states": batching.state_order,
    "kernels": batching.kernels,
    "stacking": batching.stacking,
}
ONCE: dict[str, Callable[[Subject], Verdict]] = {
    "finite": finite,
    "inputs untouched": untouched,
    "determinism": determinism,
    "saving": saving,
    "precision": precision,
    "cuda": cuda,
}
