"""Checkpoints: what a run holds between two epochs, from which it goes on to the bit after it was stopped.

A `.checkpoint` file is a safetensors file, so it is data and runs nothing. Its metadata hold a digest, and say what run
it is of: the seeds, all that decides their results, how and with which versions it is computed. The array `state` is
JSON as UTF-8: a tree of weights, moments of the optimiser, best weights, history and random generators, which numbers
the other arrays. A schedule is not in it: it is shown again what it watched.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mer_zoo.errors import MerZooError
from mer_zoo.registry.faults import short
from mer_zoo.results.environment import Environment
from mer_zoo.results.identity import Identity
from mer_zoo.results.result import SUFFIX as RESULT
from mer_zoo.results.result import Damaged, Result
from mer_zoo.results.writing import write_atomically
from mer_zoo.training.holding import Holding, NotPlain
from mer_zoo.training.options import ComputeOptions

FORMAT = "1"
SUFFIX = ".checkpoint"
EVERY = 5.0
"""Seconds between checkpoints, at least: shorter runs have none."""
SHARE = 0.02
"""Share of a run's time that writing them may take."""
STATE = "state"
FAULTS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, RecursionError)
"""What reading raises where a file is not what was written."""


@dataclass(frozen=True)
class Checkpoints:
    """Where a run keeps its checkpoint, and what it does with one that is there.

    Attributes:
        folder: where it lies.
        resume: go on from it; else training begins anew.
        strict: one that is of another run is an error, and a run that cannot be resumed says so before it has trained
            long; else training just begins anew.
    """

    folder: Path
    resume: bool = True
    strict: bool = False


def bound(identity: Identity, seeds: Sequence[int], options: ComputeOptions, device: str) -> dict[str, Any]:
    """Return what a checkpoint is of, as plain data.

    Args:
        identity: of the run of one of the seeds.
        seeds: that are trained as one program.
        options, device: how and where it is computed.
    """
    here = Environment.here(torch.cuda.get_device_name(device) if device.startswith("cuda") else device)
    computed = asdict(options) | here.model_dump(include={"torch", "numpy", "dgl", "mer_zoo", "device", "platform"})
    del computed["stack"]
    if not options.contributions:  # checkpoints from before there were any stay good
        del computed["contributions"]
    return {**identity.model_dump(exclude={"seed"}), "seeds": list(seeds), "computed": computed}


def write(path: Path, run: Mapping[str, Any], state: Any, tensors: Sequence[Tensor]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: of the file.
        run: what `bound` returns.
        state: plain data.
        tensors: on the CPU, contiguous, each with memory of its own.

    Raises:
        MerZooError: it cannot be written.
    """
    from safetensors.torch import save

    text = torch.frombuffer(bytearray(json.dumps(state, separators=(",", ":")).encode()), dtype=torch.uint8)
    arrays = {STATE: text, **{str(number): x for number, x in enumerate(tensors)}}
    told = json.dumps(run)
    write_atomically(path, save(arrays, {"mer_zoo": FORMAT, "run": told, "digest": digest(told, arrays)}))


def read(path: Path, run: Mapping[str, Any]) -> tuple[Any, list[Tensor]]:
    """Read the state and tensors of a checkpoint.

    Args:
        path: of the file.
        run: what `bound` returns.

    Raises:
        Damaged: the file is not what was written.
        MerZooError: it cannot be read, or is of another run; what differs is named.
    """
    told, arrays = opened(path)
    if differs := list(differences(told, run)):
        raise MerZooError(
            f"{path}: a checkpoint of another run: {listed(differs)}. Make this run what that one was, or remove the "
            "file."
        )
    try:
        state = json.loads(arrays.pop(STATE).numpy().tobytes())
        return state, [arrays[str(number)] for number in range(len(arrays))]
    except FAULTS as error:
        raise Damaged(f"{path}: damaged checkpoint ({short(str(error))}).") from None


def opened(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return what a checkpoint is of, and its arrays, which its digest vouches for."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        arrays = load(content)
        told = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        if told["mer_zoo"] == FORMAT and digest(told["run"], arrays) != told["digest"]:
            raise ValueError("its digest is another")
        run = json.loads(told["run"])
    except OSError as error:
        raise MerZooError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except (SafetensorError, *FAULTS) as error:
        raise Damaged(f"{path}: damaged checkpoint ({short(str(error))}).") from None
    if told["mer_zoo"] != FORMAT:
        raise MerZooError(f"{path}: not a checkpoint of format {FORMAT}, which this mer_zoo reads. Remove it.")
    return run, arrays


def digest(run: str, arrays: Mapping[str, Tensor]) -> str:
    """Return the sha256 of all that a checkpoint says."""
    found = hashlib.sha256(run.encode())
    for name in sorted(arrays):
        x = arrays[name]
        found.update(f"\n{name} {x.dtype} {tuple(x.shape)}\n".encode())
        found.update(x.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return found.hexdigest()


def differences(there: Any, here: Any, place: str = "") -> Iterator[str]:
    """Yield in words where two plain data differ.

    Example:
        >>> list(differences({"seed": 0, "recipe": {"a": 1}}, {"seed": 1, "recipe": {"a": 1}}))
        ['seed is 0 there, 1 here']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys((*here, *there)):
            yield from differences(there.get(key), here.get(key), f"{place}.{key}" if place else str(key))
    elif there != here:
        one, other = (short(json.dumps(x)) for x in (there, here))
        yield f"{place.removeprefix('recipe.').removeprefix('computed.')} is {one} there, {other} here"


def listed(differs: Sequence[str]) -> str:
    """Return the first few of many differences."""
    more = f"; and {len(differs) - 3} more" if len(differs) > 3 else ""
    return "; ".join(differs[:3]) + more


def remove(folder: Path, result: Result) -> None:
    """Remove the checkpoint of a run that has a result, and halves of it that kills have left."""
    path = folder / f"{result.file_name.removesuffix(RESULT)}{SUFFIX}"
    with suppress(OSError):
        for file in (path, *path.parent.glob(f".{path.name}.*.tmp")):
            file.unlink(missing_ok=True)


class Keeper:
    """Reads the checkpoint of a run, and writes it now and then.

    Args:
        path: of the file.
        run: what `bound` returns.
        roots: what is kept, see `Holding`.
        device: where the run is computed.
        how: what is done with a checkpoint that is there.
    """

    def __init__(
        self, path: Path, run: Mapping[str, Any], roots: Mapping[str, Any], device: str, how: Checkpoints
    ) -> None:
        self.path, self.run, self.device, self.how = path, run, device, how
        self.last, self.took, self.troubled = time.monotonic(), 0.0, False
        self.holding: Holding | None = None
        self.reason, self.early = "", how.strict
        try:
            self.holding = Holding(roots)
        except (NotPlain, *FAULTS) as error:
            self.reason = str(error)
        if how.strict:
            self._say_why_not()

    def resumed(self) -> bool:
        """Put back what a checkpoint holds, if there is one that may be used.

        Raises:
            Damaged: what it holds is not what it was, or does not fit.
            MerZooError: it is of another run, and `how` is strict.
        """
        there = self.path.exists()
        if self.holding is None or not there or not self.how.resume:
            if there and self.holding is not None:
                warnings.warn(f"{self.path}: a checkpoint of this run, not used without --resume.", stacklevel=2)
            if self.how.strict and self.how.resume and not there:
                self._say_nearest()
            return False
        try:
            state, tensors = read(self.path, self.run)
        except MerZooError as error:
            if self.how.strict or isinstance(error, Damaged):
                raise
            warnings.warn(f"{error} This run begins anew.", stacklevel=2)
            return False
        try:
            self.holding.put(state, tensors, self.device)
        except FAULTS as error:
            raise Damaged(f"{self.path}: damaged checkpoint ({short(str(error))}).") from None
        return True

    def set_aside(self, error: Damaged) -> None:
        """Rename a damaged checkpoint, and say so."""
        aside = self.path.with_name(f"{self.path.name}.damaged")
        os.replace(self.path, aside)
        warnings.warn(f"{error} It is now called {aside.name}, and training begins anew.", stacklevel=2)

    def offer(self) -> None:
        """Write a checkpoint if it is time; a disk that cannot take it does not end the run.

        What an epoch brings up that cannot be kept is looked for after the first one, if `how` is strict.
        """
        due = time.monotonic() - self.last >= max(EVERY, self.took / SHARE)
        if not due and not self.early:
            return
        self.early = False
        try:
            if self.holding is not None:
                began = time.monotonic()
                state, tensors = self.holding.take()
                if due:
                    write(self.path, self.run, state, tensors)
                    self.last = time.monotonic()
                    self.took = self.last - began
        except (NotPlain, *FAULTS) as error:
            self.holding, self.reason = None, str(error)
        except MerZooError as error:
            self.last = time.monotonic()
            if not self.troubled:
                warnings.warn(f"{error} Training goes on; the checkpoint is tried again.", stacklevel=2)
            self.troubled = True
        self._say_why_not()

    def _say_why_not(self) -> None:
        """Warn once if the run cannot be resumed."""
        if self.reason:
            warnings.warn(f"This run leaves no checkpoint: {self.reason}.", stacklevel=3)
            self.reason = ""

    def _say_nearest(self) -> None:
        """Warn of what sets the nearest checkpoint of another run in the folder apart."""
        found = []
        for path in sorted(self.path.parent.glob(f"*{SUFFIX}")):
            with suppress(MerZooError):
                differs = list(differences(opened(path)[0], self.run))
                found.append((len(differs), f"{path}: a checkpoint of another run: {listed(differs)}"))
        if found:
            warnings.warn(f"{min(found)[1]}. This run begins anew.", stacklevel=3)
