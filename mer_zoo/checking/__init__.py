"""The contract suite: what the library's own tests run over every card, a plugin author can run too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mer_zoo import registry
from mer_zoo.errors import MerZooError

if TYPE_CHECKING:
    from mer_zoo.checking.part import Finding

__all__ = ["check_part", "inspect_part"]


def check_part(
    kind: str,
    part: str | type,
    *,
    promises: Sequence[str] | None = None,
    dead: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Prove that a part keeps the contract of its kind and every promise on its card.

    What is proved of modules: the declared shape; ragged dialogues of prime lengths, one utterance, one speaker, thirty
    speakers; finite numbers; a gradient for every parameter; inputs untouched; a seed decides everything; weights
    survive a file; dialogues do not leak into each other; padding counts for nothing; all kernels agree; float64 and
    bfloat16; CUDA equals CPU; stacked weights equal a loop; every bool and Literal setting runs; the promises.

    Args:
        kind: kind of part.
        part: its name (built-in, plugin, `module:Class` or `./file.py:Class`), or the class.
        promises: what to prove besides; by default what the card promises.
        dead: wildcards of parameters that by definition get no gradient; by default those of the card.
        settings: settings to make it with, where the defaults do not suit.

    Returns:
        One `Finding` per check, in order; printing one shows it.

    Raises:
        MerZooError: what is wrong, everything at once.

    Example:
        >>> [str(finding) for finding in check_part("fusion", "concat")][:2]
        ['ok     construction', 'ok     shape']
    """
    found = list(inspect_part(kind, part, promises=promises, dead=dead, settings=settings))
    faults = [f"  {finding.check}: {finding.fault}" for finding in found if not finding.fine]
    if faults:
        name = part if isinstance(part, str) else f"{part.__module__}:{part.__qualname__}"
        raise MerZooError("\n".join([f"{kind}/{name} breaks its contract.", *faults]))
    return found


def inspect_part(
    kind: str,
    part: str | type,
    *,
    promises: Sequence[str] | None = None,
    dead: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """As `check_part`, but yield every finding, the faults too, as it is made."""
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

    import torch

    from mer_zoo.checking import graphs, kernels, learners, losses, modules, sources, strategies
    from mer_zoo.checking.part import Part

    suites = {
        "dataset": sources.datasets,
        "extractor": sources.extractors,
        "graph": graphs.findings,
        "balancing": strategies.findings,
        "loss": losses.findings,
        "kernel": kernels.findings,
        "learner": learners.findings,
    }
    suite = suites.get(kind, modules.findings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many tiny operations: waking more threads costs more than they save
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield from suite(Part(kind, cls, owner, tuple(promises or ()), tuple(dead or ()), dict(settings or {})))
    finally:
        torch.set_num_threads(threads)
