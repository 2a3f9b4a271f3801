"""Trained models on disk: weights in safetensors, rebuilt from the recipe that stands in the same file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch

from mer_zoo import registry
from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import CLASSES, Conversation
from mer_zoo.data.normalising import Normaliser
from mer_zoo.errors import MerZooError
from mer_zoo.model.assembly import assemble
from mer_zoo.model.budget import refuse_other_weights
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.plan import Plan, Strict
from mer_zoo.registry import plugins
from mer_zoo.registry.faults import short
from mer_zoo.results.writing import write_atomically

FORMAT = "2"
NORMALISER = "normaliser:"
"""What the names of a normaliser's arrays begin with."""

IN_FOLDER = "model.safetensors"
"""The model file in a folder that `mer-zoo export` wrote."""


@dataclass(frozen=True)
class Saved:
    """A trained model with all it takes to use it.

    Attributes:
        model: in evaluation mode.
        name: recipe name.
        plan: what it was made from.
        label_names: names of its classes.
        run: identity of the run.
        normaliser: what brings features to the scale that the model was trained on.
        seed, fold: of the run.
    """

    model: Model
    name: str
    plan: Plan
    label_names: tuple[str, ...]
    run: str
    normaliser: Normaliser
    seed: int = 0
    fold: int | None = None

    def refuse_other_features(self, dialogue: Conversation) -> None:
        """Refuse a dialogue without the features that the model was trained on.

        Raises:
            MerZooError: a modality is missing, or a width differs.
        """
        for modality, width in self.plan.modalities.items():
            if dialogue.widths.get(modality) != width:
                got = f"width {dialogue.widths[modality]}" if modality in dialogue.widths else "none"
                raise MerZooError(
                    f"dialogue '{dialogue.id}': model '{self.name}' was trained on {modality} features of width "
                    f"{width}; here: {got}."
                )

    def corpus(self, conversations: Sequence[Conversation], device: str = "cpu") -> Corpus:
        """Return dialogues as the model sees them: checked, normalised, on the device.

        Speakers beyond those that the model was made for share a place; a warning says so.

        Raises:
            MerZooError: a modality is missing, or a width differs.
        """
        for dialogue in conversations:
            self.refuse_other_features(dialogue)
            count = int(dialogue.speaker_index.max()) + 1
            if count > self.model.facts.speakers:
                warnings.warn(
                    f"dialogue '{dialogue.id}': {count} speakers, but model '{self.name}' was trained for "
                    f"{self.model.facts.speakers}; it does not tell the further ones apart.",
                    stacklevel=2,
                )
        seen = [self.normaliser.apply(dialogue) for dialogue in conversations]
        return Corpus(seen, self.model.builder, self.model.views, device=device)

    def predict(self, conversations: Sequence[Conversation], device: str = "cpu") -> dict[str, np.ndarray]:
        """Return dialogue id -> probabilities of the classes, float64 `[utt, classes]`.

        Raises:
            MerZooError: as of `corpus`.
        """
        corpus = self.corpus(conversations, device)
        self.model.to(device).eval()
        found = {}
        with torch.no_grad():
            for i, dialogue in enumerate(conversations):
                found[dialogue.id] = self.model(corpus.batch([i])).logits.softmax(-1).double().cpu().numpy()
        return found


class _Header(Strict):
    """What a model file says of its weights."""

    name: str
    filled: Plan
    facts: Facts
    label_names: Annotated[tuple[str, ...], pydantic.Field(min_length=1, max_length=CLASSES)]
    run: str
    seed: int
    fold: int | None
    packages: dict[str, str] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> _Header:
        if self.facts.classes != len(self.label_names) or dict(self.facts.widths) != self.filled.modalities:
            raise ValueError("its classes or widths contradict one another")
        return self


def save(saved: Saved, path: Path) -> None:
    """Write a model atomically: a crash leaves no half-written file."""
    from safetensors.torch import save as serialised

    described = {
        "name": saved.name,
        "filled": saved.plan.plain(),
        "facts": asdict(saved.model.facts),
        "label_names": list(saved.label_names),
        "run": saved.run,
        "seed": saved.seed,
        "fold": saved.fold,
        "packages": _packages(saved.plan),
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in saved.model.state_dict().items()}
    weights |= {NORMALISER + name: torch.from_numpy(x) for name, x in saved.normaliser.state().items()}
    content = serialised(weights, metadata={"mer_zoo": FORMAT, "model": json.dumps(described)})
    write_atomically(path, _ordered(content))


def _ordered(content: bytes) -> bytes:
    """Put the metadata, which the library writes in any order, in order: equal models are equal files."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # where the numbers begin, as the library has it
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def run_of(path: Path) -> str | None:
    """Return the run that a model file comes from; None where there is no file, or it is not whole.

    Args:
        path: of a `.safetensors` file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as archive:  # compares the file's length with what its header says
            return str(json.loads((archive.metadata() or {})["model"])["run"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def file_of(path: Path | str) -> Path:
    """Return the model file that a path stands for: itself, the one beside a result file, or the one in a folder.

    Args:
        path: of a model file, a result file, or a folder that `mer-zoo export` wrote.

    Raises:
        MerZooError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / IN_FOLDER).is_file():
            raise MerZooError(f"{path}: no {IN_FOLDER} in this folder. `mer-zoo export` writes it; or name the file.")
        return path / IN_FOLDER
    if path.name.endswith(".result.json"):
        path = path.with_name(path.name.removesuffix(".result.json") + ".safetensors")
    if not path.is_file():
        raise MerZooError(f"{path}: no such file. `mer-zoo train` writes one; `compare` does with --keep-weights.")
    return path


def refuse_another(path: Path, run: str, plan: Mapping[str, Any], label_names: Sequence[str]) -> None:
    """Refuse a model file that is not whole, or not of a run; no part is made, so none is run.

    Args:
        path: of a `.safetensors` file.
        run, plan, label_names: what the result of the run says.

    Raises:
        MerZooError: the file is damaged, or its model is another.
    """
    _, header = _read(path, "cpu")
    if (header.run, header.filled.plain(), header.label_names) != (run, dict(plan), tuple(label_names)):
        raise MerZooError(
            f"{path}: weights of another run ({short(header.run)}; the result is of {run}). Put the weights of this "
            "run beside its result, or repeat it with --keep-weights."
        )


def _read(path: Path, device: str) -> tuple[dict[str, torch.Tensor], _Header]:
    """Return the weights of a file and what it says of them; nothing of it is made or run."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=device) as archive:
            metadata = archive.metadata() or {}
            weights = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise MerZooError(f"{path}: not a readable safetensors file ({short(str(error))}).") from None
    broken = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise MerZooError(f"{path}: the weights of {broken[0]} are not finite: its training diverged. Train it anew.")
    if metadata.get("mer_zoo") != FORMAT:
        raise MerZooError(f"{path}: not a model of format {FORMAT}, which this mer_zoo reads. Train it anew.")
    try:
        return weights, _Header.model_validate_json(metadata.get("model", ""))
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise MerZooError(f"{path}: its description is damaged: {where}: {fault['msg']}. Train it anew.") from None


def load(path: Path | str, device: str = "cpu", trust: Collection[str] = ()) -> Saved:
    """Read a model back. A model file is data: no code runs that is not installed, unless the caller trusts it by name.

    Args:
        path: a `.safetensors` file, the `.result.json` beside it, or the folder that `mer-zoo export` wrote.
        device: where to put it.
        trust: parts by file or module that may be run, such as `./mine.py:Mine`; their source must be what it was when
            the model was trained.

    Raises:
        MerZooError: no such file, not a model of this library, a part it needs is gone, not trusted, or has changed.
    """
    path = file_of(path)
    weights, header = _read(path, device)
    plan = header.filled
    _refuse_missing(plan, header.packages, path)
    refuse_strangers(plan, trust, path)
    measured = {name: weights.pop(name).cpu().numpy() for name in list(weights) if name.startswith(NORMALISER)}
    state = {name.removeprefix(NORMALISER): x for name, x in measured.items()}
    try:
        refuse_other_weights(plan, header.facts, {name: value.shape for name, value in weights.items()})
        normaliser = Normaliser.from_state(plan.normalise, state, plan.modalities)
    except MerZooError as error:
        raise MerZooError(f"{path}: the weights do not fit the recipe in the file: {error} Train it anew.") from None
    model = assemble(plan, replace(header.facts, longest=3)).to(device)  # nothing is as long as a file may claim
    model.facts = header.facts
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:  # where a part of someone's own could not be sketched
        raise MerZooError(f"{path}: the weights do not fit the recipe in the file: {short(str(error))}") from None
    return Saved(model.eval(), header.name, plan, header.label_names, header.run, normaliser, header.seed, header.fold)


def _of_plugins(plan: Plan) -> list[tuple[str, str]]:
    """Return kind and name of the parts that plugins bring."""
    return [(kind, part.name) for kind, part in plan.parts() if "/" in part.name and ":" not in part.name]


def _packages(plan: Plan) -> dict[str, str]:
    """Return plugin -> what to install for it, of all that a plan's parts come from."""
    owners = [plugins.owner(name) for _, name in _of_plugins(plan)]
    return {plugin.name: f"{plugin.package}=={plugin.version}" for plugin in owners if plugin is not None}


def _refuse_missing(plan: Plan, packages: Mapping[str, str], path: Path) -> None:
    """Refuse parts of packages that are not installed, or are not what they were, and say what to install."""
    for kind, name in _of_plugins(plan):
        package = packages.get(name.partition("/")[0])
        remedy = f"Run `pip install '{package}'`." if package else "Install the package that brings it."
        if plugins.owner(name) is None:
            raise MerZooError(f"{path}: the model needs {kind} '{name}', whose package is not installed. {remedy}")
        if registry.code(registry.find(kind, name)) != plan.code.get(f"{kind}/{name}"):
            changed = f"{kind} '{name}' is not what it was when the model was trained"
            raise MerZooError(f"{path}: {changed}. {remedy} Or train it anew.")


def refuse_strangers(plan: Plan, trust: Collection[str], path: Path) -> None:
    """Refuse parts by file or module that the caller did not name, before any of their code runs.

    Args:
        plan: read from a file.
        trust: parts that may be run, such as `./mine.py:Mine`; their source must be what it was.
        path: the file.

    Raises:
        MerZooError: a part that is not trusted, or that has changed.
    """
    named = [(kind, part.name) for kind, part in plan.parts() if ":" in part.name]
    if strangers := sorted({name for _, name in named if name not in trust}):
        raise MerZooError(
            f"{path}: the model needs code that is not installed: {', '.join(strangers)}. It was not run. If you know "
            f"what it does, allow it: trust={strangers!r}, or `--trust {strangers[0]}`."
        )
    for kind, name in named:
        if registry.code(registry.find(kind, name)) != plan.code.get(f"{kind}/{name}"):
            raise MerZooError(f"{path}: {name} is not what it was when the model was trained. Train it anew.")
