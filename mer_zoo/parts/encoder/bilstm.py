"""A bidirectional LSTM over every dialogue."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.ops.dropout import Dropout
from mer_zoo.parts.ops.scan import AS_ONNX, onnx_operator, scan, stacking


class BiLSTM(nn.Module):
    r"""Layers of a forward and a backward LSTM, their states concatenated (bc-LSTM §3.2, DialogueGCN §3.3.1).

    $$\overrightarrow{h}_i = \mathrm{LSTM}(x_i, \overrightarrow{h}_{i-1}),\quad
      \overleftarrow{h}_i = \mathrm{LSTM}(x_i, \overleftarrow{h}_{i+1}),\quad
      h_i = [\overrightarrow{h}_i;\overleftarrow{h}_i]$$

    The backward direction reads each dialogue from its own last utterance. Much published code reads from the end of
    the padding, which lets a dialogue's output depend on the longest one of its batch: `padding: shown` in a recipe.

    Inputs:
        x: float `[N, width]`; layout.
    Outputs:
        float `[N, 2 * hidden]`.

    Args:
        width: width of x (a fact).
        hidden: width of each direction.
        layers: how many.
        dropout: probability between layers.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> BiLSTM(6, hidden=4)(batch.features["text"], batch.layout).shape
        torch.Size([10, 8])
    """

    cell: Any = nn.LSTM
    removed: ClassVar = {
        "packed": "Leave it out; for `packed: false`, put a stage `{padding: shown}` before this one and "
        "`{padding: hidden}` after it.",
        "project": "Put a stage `{encoder: {name: linear, out_width: ...}}` before this one; where padding is to be "
        "mapped too, both between `{padding: shown}` and `{padding: hidden}`.",
    }

    def __init__(
        self,
        width: int,
        *,
        hidden: int = 100,
        layers: int = 2,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        self.out_width = 2 * hidden
        widths = [width, *[2 * hidden] * (layers - 1)]
        self.forwards = nn.ModuleList(self.cell(w, hidden, batch_first=True) for w in widths)
        self.backwards = nn.ModuleList(self.cell(w, hidden, batch_first=True) for w in widths)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Run both directions, layer by layer."""
        first: tuple[Any, Any] = (self.forwards[0], self.backwards[0])
        wide = x.shape[1] > first[0].weight_ih_l0.shape[0]
        h = layout.pad(x[:, :0] if wide else x)
        place = torch.arange(h.shape[1], device=h.device)
        last = layout.lengths.unsqueeze(1) - 1  # reading order of the way back: its own inverse; padding stays behind
        mirror = torch.where(place <= last, last - place, place).expand(h.shape[:2]).unsqueeze(-1)
        for i, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            inputs = [self.drop(h) if i else h] * 2
            if wide and i == 0:  # wide features are mapped to gates before there is padding
                inputs = [layout.pad(F.linear(x, cell.weight_ih_l0).to(x.dtype)) for cell in first]
            mapped = wide and i == 0
            seen = read(ahead, inputs[0], mapped)
            reversed_ = read(back, inputs[1].gather(1, mirror.expand_as(inputs[1])), mapped)
            h = torch.cat([seen, reversed_.gather(1, mirror.expand_as(seen))], -1)
        return layout.unpad(h)


def read(cell: Any, x: Tensor, mapped: bool) -> Tensor:
    """Run a cell over `[B, L, width]`, or over inputs that its input weights have mapped already.

    Raises:
        RuntimeError: x has another width than the cell reads.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with torch.autocast("cpu", enabled=False):  # oneDNN has no bfloat16 LSTM there, and its GRU is slower
            return read(cell, x.float(), mapped)
    if stacking():
        return scan(cell, x if mapped else F.linear(x, cell.weight_ih_l0))
    gates = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) if mapped else cell.weight_ih_l0
    if AS_ONNX.get():
        return onnx_operator(cell, x, gates)
    if not mapped:
        return cell(x)[0]
    weights = [gates, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0]
    start = x.new_zeros(1, x.shape[0], cell.hidden_size)
    if isinstance(cell, nn.LSTM):
        return torch.lstm(x, [start, start], weights, True, 1, 0.0, cell.training, False, True)[0]
    return torch.gru(x, start, weights, True, 1, 0.0, cell.training, False, True)[0]
