"""What a loss may see of a batch beside what the model says and the labels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mer_zoo.errors import MerZooError, nearest

if TYPE_CHECKING:
    from mer_zoo.batch.index import Layout
    from mer_zoo.batch.output import Output

SEEN = {
    "layout": "`Layout`: dialogue, speaker and position of every utterance, and `pad` to lay them out by dialogue",
    "targets": "label column beside the emotion's -> int64 `[N]`, -1 where unlabelled; those named under `tasks`",
}
"""What a loss's `forward` may ask for behind `output` and `labels`, by the name of the argument."""


class Targets(dict[str, Tensor]):
    """Label columns by name; one that is not there is an error with the fix.

    Example:
        >>> Targets(mood=None)["moood"]
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: no label column 'moood'. Did you mean 'mood'? Name it under `tasks`.
    """

    def __missing__(self, name: str) -> Tensor:
        raise MerZooError(f"no label column '{name}'.{nearest(name, self)} Name it under `tasks`.")


def seen_by(loss: Any) -> tuple[str, ...]:
    """Return what of `SEEN` a loss asks for.

    Args:
        loss: an instance or its class.

    Raises:
        MerZooError: it asks for something else.

    Example:
        >>> from mer_zoo.parts.loss.dialogue_contrastive import DialogueContrastive
        >>> seen_by(DialogueContrastive)
        ('layout',)
    """
    if not hasattr(loss, "forward"):
        return ()  # no module, as will be said where it is made
    asked = list(inspect.signature(loss.forward).parameters.values())[2 + inspect.isclass(loss) :]
    for argument in asked:
        if argument.name not in SEEN and argument.default is argument.empty and "VAR" not in argument.kind.name:
            raise MerZooError(
                f"forward asks for '{argument.name}', but beside output and labels a loss can be given "
                f"{' and '.join(SEEN)} alone.{nearest(argument.name, SEEN)}"
            )
    return tuple(argument.name for argument in asked if argument.name in SEEN)


def beside(seen: tuple[str, ...], layout: Layout, targets: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments that a loss asks for, by name."""
    given = {"layout": layout, "targets": Targets(targets)}
    return {name: given[name] for name in seen}


def heads_of(output: Output, loss: str) -> Mapping[str, Tensor]:
    """Return the logits of every modality's own head, for a loss that needs them.

    Args:
        output: of the model.
        loss: name of the loss, for the error.

    Raises:
        MerZooError: the model has no head per modality.
    """
    if not output.modality_logits:
        raise MerZooError(
            f"loss/{loss}: the model has no head per modality. Put a `head` before the fusion (`logit_sum`), or use "
            "`loss: nll`."
        )
    return output.modality_logits
