"""The contract suite: what the library's own tests run over every card, a plugin author can run too."""

from __future__ import annotations

import fnmatch
import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mer_zoo import registry
from mer_zoo.errors import MerZooError, nearest

if TYPE_CHECKING:
    from mer_zoo.checking.part import Checks, Finding, Findings

__all__ = ["check_names", "check_part", "inspect_part"]


def check_part(
    kind: str,
    part: str | type,
    *,
    only: str = "*",
    promises: Sequence[str] | None = None,
    dead: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Findings:
    """Check that a part keeps the contract of its kind and what its card promises.

    Modules are checked for: the declared shape, with three sets of facts; ragged dialogues of prime lengths, one
    utterance, one speaker, many speakers, absent modalities, 130 turns; finite numbers; a gradient for every parameter
    and every input; an output that depends on every input, and on edges and their relations; inputs untouched; a seed
    that decides everything; weights that survive a file; no leak between dialogues; padding that counts for nothing;
    agreement of all kernels, of float64 and bfloat16 with float32, of CUDA with CPU, of stacked weights with a loop;
    every setting, which must work and matter off its default; the promises. Most checks run twice: with the defaults,
    and with other facts and all numeric settings moved.

    Args:
        kind: kind of part.
        part: its name (built-in, plugin, `module:Class` or `./file.py:Class`), or the class.
        only: a wildcard on the names of the checks (see `check_names`).
        promises: what to check besides; by default what the card promises.
        dead: wildcards of parameters that by definition get no gradient; by default those of the card.
        settings: settings to make it with, where the defaults do not suit.

    Returns:
        One `Finding` per check, in order; print all or one, or let a notebook show them.

    Raises:
        MerZooError: what is wrong, everything at once; or no check has such a name.

    Example:
        >>> [str(finding) for finding in check_part("fusion", "concat")][:2]
        ['ok     construction', 'ok     shape']
        >>> [str(finding) for finding in check_part("fusion", "concat", only="iso*")]
        ['ok     isolation']
    """
    findings = inspect_part(kind, part, only=only, promises=promises, dead=dead, settings=settings)
    from mer_zoo.checking.part import Findings

    found = Findings(findings)
    faults = [f"  {finding.check}: {finding.fault}" for finding in found if not finding.fine]
    if faults:
        name = part if isinstance(part, str) else f"{part.__module__}:{part.__qualname__}"
        raise MerZooError("\n".join([f"{kind}/{name} breaks its contract.", *faults]))
    return found


def inspect_part(
    kind: str,
    part: str | type,
    *,
    only: str = "*",
    promises: Sequence[str] | None = None,
    dead: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """As `check_part`, but yield every finding, the faults too, as it is made."""
    checks = _checks(kind, part, promises, dead, settings)
    chosen = fnmatch.filter(checks, only)
    if not chosen:
        raise MerZooError(f"no check named '{only}'.{nearest(only, checks)} There are: {', '.join(checks)}.")

    import torch

    from mer_zoo.checking.part import judge

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many tiny operations: waking more threads costs more than they save
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            for name in chosen:
                finding = judge(name, checks[name])
                yield finding
                if not finding.fine and name in FIRST:
                    return  # what cannot be made, or has another form, fails everything else too
    finally:
        torch.set_num_threads(threads)


def check_names(kind: str, part: str | type, *, promises: Sequence[str] | None = None) -> list[str]:
    """Return the names of a part's checks, in order; those of its promises and settings among them.

    Example:
        >>> check_names("loss", "focal_log")[:3], check_names("loss", "focal_log")[-1]
        (['construction', 'scalar', 'classes'], 'setting gamma')
    """
    return list(_checks(kind, part, promises))


FIRST = ("construction", "shape", "scalar")
"""Checks without which there is no other."""


def _checks(
    kind: str,
    part: str | type,
    promises: Sequence[str] | None = None,
    dead: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Checks:
    if isinstance(part, str):
        card = registry.find(kind, part)
        cls, owner = registry.load(card), card.id
        promises = card.promises if promises is None else promises
        dead = card.dead if dead is None else dead
    else:
        cls, owner = part, f"{kind}/{registry.snake_case(part.__name__)}"
    if faults := registry.promise_faults(kind, promises or ()):
        raise MerZooError("\n".join(f"{owner}: {fault}" for fault in faults))
    registry.schema(kind, cls)  # an untyped setting or an unknown fact is told before anything runs

    from mer_zoo.checking.part import Part

    module, _, function = registry.KINDS[kind].checks.partition(":")
    suite = getattr(importlib.import_module(module), function)
    return suite(Part(kind, cls, owner, tuple(promises or ()), tuple(dead or ()), dict(settings or {})))
