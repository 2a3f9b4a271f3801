"""Recurrent layers of plain operations, turn by turn: torch's fused ones cannot be stacked under `torch.func.vmap`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.parts.ops import gru

AS_ONNX: ContextVar[bool] = ContextVar("whether fused layers become ONNX's operators", default=False)


def stacking() -> bool:
    """Return whether a transform such as `torch.func.vmap` is at work, for which fused layers have no rule.

    Example:
        >>> stacking(), torch.func.vmap(lambda x: x + stacking())(torch.zeros(2))
        (False, tensor([1., 1.]))
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def scan(cell: Any, seen: Tensor) -> Tensor:
    r"""Return the states of a layer over all turns, from zero states: what `nn.LSTM` or `nn.GRU` computes.

    $$c' = \sigma(f)\,c + \sigma(i)\tanh(g),\quad h' = \sigma(o)\tanh(c'),\qquad [i, f, g, o] = s + W h + b$$

    with the gates of Hochreiter and Schmidhuber (1997) as PyTorch orders them; for the GRU see `gru.step`.

    Args:
        cell: `nn.LSTM` or `nn.GRU` of one layer and one direction.
        seen: its inputs, mapped to gates without bias: s, float `[batch, turns, gates]`.

    Returns:
        float `[batch, turns, hidden]`.

    Example:
        >>> cell, x = nn.LSTM(3, 2, batch_first=True), torch.ones(4, 5, 3)
        >>> torch.allclose(scan(cell, x @ cell.weight_ih_l0.t()), cell(x)[0], atol=1e-6)
        True
    """
    weight, bias = cell.weight_hh_l0, cell.bias_hh_l0
    seen = seen + cell.bias_ih_l0
    state = memory = torch.zeros_like(seen[:, 0, : weight.shape[1]])
    states = []
    for turn in seen.unbind(1):
        kept = F.linear(state, weight, bias)
        if isinstance(cell, nn.LSTM):
            take, keep, new, show = (turn + kept).chunk(4, -1)
            memory = keep.sigmoid() * memory + take.sigmoid() * new.tanh()
            state = show.sigmoid() * memory.tanh()
        else:
            state = gru.step(turn, kept, state)[0]
        states.append(state)
    return torch.stack(states, 1)


@contextmanager
def as_onnx() -> Iterator[None]:
    """Let fused layers become ONNX's operators, for a program that is traced to be written as ONNX.

    Example:
        >>> with as_onnx():
        ...     AS_ONNX.get()
        True
    """
    token = AS_ONNX.set(True)
    try:
        yield
    finally:
        AS_ONNX.reset(token)


def onnx_operator(cell: Any, x: Tensor, gates: Tensor) -> Tensor:
    """Return the states of a layer as ONNX's own operator: torch's fused one would be written for one length only.

    Outside of such a program the result has the right shape and no content.

    Args:
        cell: `nn.LSTM` or `nn.GRU` of one layer and one direction.
        x: its inputs, float `[batch, turns, width]`.
        gates: what maps them to gates, float `[gates, width]`.

    Returns:
        float `[batch, turns, hidden]`.

    Example:
        >>> cell, x = nn.GRU(3, 2, batch_first=True), torch.ones(4, 5, 3)
        >>> onnx_operator(cell, x, cell.weight_ih_l0).shape
        torch.Size([4, 5, 2])
    """
    is_lstm = isinstance(cell, nn.LSTM)
    order = [0, 3, 1, 2] if is_lstm else [1, 0, 2]  # ONNX: input, output, forget, new; or update, reset, new

    def ordered(table: Tensor) -> Tensor:
        parts = table.unflatten(0, (len(order), -1))
        return parts.index_select(0, torch.tensor(order)).flatten(0, 1)

    bias = torch.cat([ordered(cell.bias_ih_l0), ordered(cell.bias_hh_l0)])
    weights = [table.unsqueeze(0) for table in (ordered(gates), ordered(cell.weight_hh_l0), bias)]
    settings = {"hidden_size": cell.hidden_size} | ({} if is_lstm else {"linear_before_reset": 1})
    states = torch.onnx.ops.symbolic(
        "LSTM" if is_lstm else "GRU",
        [x.transpose(0, 1), *weights],
        settings,
        dtype=x.dtype,
        shape=(x.shape[1], 1, x.shape[0], cell.hidden_size),
    )
    return states.squeeze(1).transpose(0, 1)
