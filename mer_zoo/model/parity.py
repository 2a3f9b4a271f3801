"""Numerical parity: a published model's weights in our recipe, and how far its numbers are from ours.

A parity file (`.npz`) holds what a published implementation computed on small random dialogues: inputs, weights,
logits, losses, gradients, and five optimiser steps. Which recipe it belongs to and which weight goes where is data:
`baselines/parity/<file stem>.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import MODALITIES, Conversation
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.kernel.base import Kernel
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.plan import PartChoice
from mer_zoo.model.step import companions
from mer_zoo.registry import document, resources

LOGITS, GRADIENT, LOSS = 1e-5, (1e-6, 1e-4), 1e-5
"""Tolerances: absolute on logits; absolute plus relative on gradients; absolute on the loss of each step."""


@dataclass(frozen=True)
class Difference:
    """One compared quantity: its largest difference, as a share of what is tolerated (at most 1 passes)."""

    quantity: str
    difference: float
    share: float

    @property
    def passes(self) -> bool:
        """Whether it is within tolerance."""
        return self.share <= 1


def check(path: Path | str, kernels: type[Kernel] | None = None) -> list[Difference]:
    """Compare everything that a parity file holds with what our recipe computes.

    Args:
        path: the parity file.
        kernels: kernel class to force, or None for the usual choice.

    Raises:
        MerZooError: not a parity file, or none of ours knows it.
    """
    arrays, meta, mapping = _read(Path(path))
    torch_arrays = {key: torch.from_numpy(value) for key, value in arrays.items() if value.dtype.kind in "fi"}
    dialogues = _conversations(arrays, meta)
    model, loss, corpus = _build(mapping, meta, dialogues, kernels)
    expressions = dict(_expand([*mapping["weights"], *mapping.get("also", [])]))
    _load(model, expressions, torch_arrays)
    logits_key = mapping["outputs"]["logits"]
    lengths = [len(dialogue) for dialogue in dialogues]
    found: list[Difference] = []

    def compare(quantity: str, ours: Tensor, theirs: Tensor, absolute: float, relative: float = 0.0) -> None:
        gap = (ours.detach() - theirs).abs()
        allowed = absolute + relative * theirs.abs()
        found.append(Difference(quantity, float(gap.max()), float((gap / allowed).max())))

    everyone = range(len(dialogues))
    batch = corpus.batch(everyone)
    model.eval()
    with torch.no_grad():
        together = model(batch).logits.split(lengths)
        for i in everyone:
            compare(f"logits of dialogue {i}", together[i], torch_arrays[f"dialogue{i}.{logits_key}"], LOGITS)
            if f"dialogue{i}.alone_logits" in torch_arrays:
                alone = model(corpus.batch([i])).logits
                compare(f"logits of dialogue {i} alone", alone, torch_arrays[f"dialogue{i}.alone_logits"], LOGITS)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-5)
    for step, theirs in enumerate(torch_arrays["training.total_loss_per_step"]):
        optimizer.zero_grad()
        total = loss(model(batch), batch.labels)
        total.backward()
        compare(f"loss of step {step}", total.double(), theirs, LOSS)
        if step == 0:
            compare("loss.total", total, torch_arrays["loss.total"], LOSS)
            gradients = {name: p.grad for name, p in model.named_parameters()}
            for name, gradient in gradients.items():
                published = {k.removeprefix("grad."): v for k, v in torch_arrays.items() if k.startswith("grad.")}
                if gradient is None or not set(_sources(expressions[name])) <= published.keys():
                    continue
                theirs_here = _evaluate(expressions[name], published).reshape(gradient.shape)
                compare(f"gradient of {name}", gradient, theirs_here, *GRADIENT)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        trained = model(batch).logits.split(lengths)
        for i in everyone:
            if f"dialogue{i}.logits_after_training" in torch_arrays:
                theirs = torch_arrays[f"dialogue{i}.logits_after_training"]
                # five steps of Adam divide by the root of tiny gradients: rounding may grow a hundredfold
                compare(f"logits of dialogue {i} after training", trained[i], theirs, 100 * LOGITS)
    return found


def known() -> list[str]:
    """Return the stems of the parity files that have a mapping.

    Example:
        >>> "mmgcn" in known()
        True
    """
    return sorted(path.stem for path in (resources.folder("baselines") / "parity").glob("*.yaml"))


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    if not path.is_file():
        raise MerZooError(f"{path}: no such file.")
    if path.stem not in known():
        raise MerZooError(
            f"{path}: no mapping for a parity file of this name.{nearest(path.stem, known())} "
            "Add `baselines/parity/<file stem>.yaml`."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise MerZooError(
            f"{path}: not a parity file ({error}). It must be an .npz with a JSON entry 'meta'."
        ) from None
    return arrays, meta, _mapping(path.stem)


def _mapping(stem: str) -> dict[str, Any]:
    data = document.read(resources.folder("baselines") / "parity" / f"{stem}.yaml").data
    base = data.pop("extends", None)
    return {**_mapping(Path(base).stem), **data} if base else data


def _conversations(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> list[Conversation]:
    roles = tuple(str(i) for i in range(meta["n_speakers"]))
    return [
        Conversation(
            id=f"dialogue{i}",
            speakers=tuple(str(s) for s in arrays[f"dialogue{i}.speaker"]),
            labels=arrays[f"dialogue{i}.label"],
            features={m: arrays[f"dialogue{i}.{m}"] for m in MODALITIES if f"dialogue{i}.{m}" in arrays},
            roles=roles,
        )
        for i in range(len(meta["lengths"]))
    ]


def _build(
    mapping: Mapping[str, Any], meta: Mapping[str, Any], dialogues: list[Conversation], kernels: type[Kernel] | None
) -> tuple[Model, Any, Corpus]:
    overrides = [f"{key}={str(value).format(**meta)}" for key, value in mapping["settings"].items()]
    file = recipe.read(mapping["recipe"], overrides)
    plan = filling.fill(file, dialogues[0].widths, "the parity file")
    if plan.loss.settings.get("class_weights", "none") != "none":
        weighted = {**plan.loss.plain(), "class_weights": meta["class_weights"]}
        plan = plan.model_copy(update={"loss": PartChoice.model_validate(weighted)})
    classes = meta["n_classes"]
    facts = Facts(dialogues[0].widths, meta["n_speakers"], classes, (1,) * classes)
    model = assemble(plan, facts)
    _, loss = companions(plan, facts)
    return model, loss, Corpus(dialogues, model.builder, model.views, kernels=kernels)


def _expand(groups: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield (our parameter, expression over published names), placeholders filled."""
    for group in groups:
        loop = group.get("for", [{}])
        if isinstance(loop, dict):  # {n: 64} counts from 0 to 63
            ((name, count),) = loop.items()
            loop = [{name: i} for i in range(count)]
        for values in loop:
            for ours, expression in group["map"].items():
                yield ours.format(**values), _fill(expression, values)


def _fill(expression: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(expression, str):
        return expression.format(**values)
    if isinstance(expression, list):
        return [_fill(item, values) for item in expression]
    return {key: _fill(item, values) for key, item in expression.items()}


def _sources(expression: Any) -> Iterator[str]:
    if isinstance(expression, str):
        yield expression
    else:
        for item in expression if isinstance(expression, list) else expression.values():
            yield from _sources(item)


def _evaluate(expression: Any, arrays: Mapping[str, Tensor]) -> Tensor:
    """A name is that array; a list stacks; `columns` joins side by side; `transpose` transposes."""
    if isinstance(expression, str):
        return arrays[expression]
    if isinstance(expression, list):
        return torch.stack([_evaluate(item, arrays) for item in expression])
    if "columns" in expression:
        return torch.cat([_evaluate(item, arrays) for item in expression["columns"]], 1)
    return _evaluate(expression["transpose"], arrays).t()


def _load(model: Model, expressions: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    published = {k.removeprefix("weight."): v for k, v in arrays.items() if k.startswith("weight.")}
    parameters = dict(model.named_parameters())
    if missing := parameters.keys() - expressions.keys():
        raise MerZooError(f"parity mapping: nothing is mapped to {', '.join(sorted(missing))}.")
    with torch.no_grad():
        for name, expression in expressions.items():
            if name not in parameters:
                raise MerZooError(f"parity mapping: the model has no parameter '{name}'.{nearest(name, parameters)}")
            parameters[name].copy_(_evaluate(expression, published).reshape(parameters[name].shape))
