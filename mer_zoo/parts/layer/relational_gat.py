"""Graph attention that knows the relation of an edge."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.layer.gat import GAT, Combine


class RelationalGAT(GAT):
    r"""As `GAT`, with a learned score per head and relation added before the LeakyReLU.

    $$e_{ij} = \mathrm{LeakyReLU}_{0.2}(a_L\cdot W x_i + a_R\cdot W x_j + r_{\rho(ij)})$$

    An embedding of the relation times a vector, as AMB-DSGDN has it, is this one number. It starts at zero, as `GAT`.

    Inputs and outputs are those of `GAT`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        out_width, heads, combine, dropout: as in `GAT`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> RelationalGAT(6, edges.names, out_width=8, heads=2)(batch.features["text"], edges, None).shape
        torch.Size([10, 8])
    """

    def __init__(
        self,
        width: int,
        relations: tuple[str, ...],
        *,
        out_width: int = 100,
        heads: int = 4,
        combine: Combine = "concat",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(width, out_width=out_width, heads=heads, combine=combine, dropout=dropout)
        self.relation_score = nn.Parameter(torch.zeros(heads, len(relations)))

    def scores(self, values: Tensor, edges: Kernel) -> Tensor:
        """Add each relation's score."""
        return super().scores(values, edges) + edges.relation(self.relation_score)
