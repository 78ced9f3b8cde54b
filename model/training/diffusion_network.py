"""The masked-diffusion decoder in place of the autoregressive one, on the same encoder.

Code vector    V_pc = mean of the vectors of the items with code c at position p + offset_pc
Denoiser       log p(code c at p | unmasked codes, h) = softmax_c(q_p . V_pc + b_pc),
               q = h + MLP([h, t_1 .. t_L]),  t_p = V_pc where code c of position p is known,
               else the mask of p
Item choice    softmax over the items that share all codes of q_item . v_i + b_i

Every position reads every known code, to both of its sides. One hidden layer over all positions
together costs a quarter of one transformer block over them, which counts where a search asks for
every beam at every step. Shapes: W partly unmasked IDs, L levels, K codes of the largest level,
N items, D width.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.diffusion_search import ordered_levels
from model.training.network import Network, NetworkShape
from model.trie import Trie

HIDDEN = 4
"""Width of the denoiser's hidden layer, in D."""


@dataclass(frozen=True)
class CodeTensors:
    """A vector and a bias per code; codes that a level does not have are never asked for."""

    vectors: Tensor
    """[L, K, D]"""
    biases: Tensor
    """[L, K]"""


class Denoiser(nn.Module):
    """What each masked position, and the choice of an item, ask for."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        levels, width = len(shape.codebook_sizes), shape.width
        self.masks = nn.Parameter(0.02 * torch.randn(levels, width))
        self.inner = nn.Linear((levels + 1) * width, HIDDEN * width)
        self.dropout = nn.Dropout(shape.dropout)
        self.outer = nn.Linear(HIDDEN * width, (levels + 1) * width)

    def forward(self, h: Tensor, codes: Tensor, vectors: Tensor) -> Tensor:
        """Queries [W, L + 1, D] of each position and of the item, given h [W, D].

        Args:
            h: encoded histories.
            codes: [W, L], negative where masked.
            vectors: of the codes [L, K, D].
        """
        levels, width = self.masks.shape
        known = vectors[torch.arange(levels, device=codes.device), codes.clamp(min=0)]
        tokens = torch.where((codes >= 0).unsqueeze(-1), known, self.masks)
        hidden = functional.gelu(self.inner(torch.cat([h, tokens.flatten(1)], dim=1)))
        asked = self.outer(self.dropout(hidden)).view(-1, levels + 1, width)
        queries: Tensor = h.unsqueeze(1) + asked
        return queries


def code_logits(queries: Tensor, table: CodeTensors) -> Tensor:
    """Logits [W, L, K] of all codes under the queries [W, L + 1, D]."""
    levels = table.biases.shape[0]
    products = torch.matmul(queries[:, :levels].transpose(0, 1), table.vectors.transpose(1, 2))
    return products.transpose(0, 1) + table.biases


class DiffusionNetwork(Network):
    """A network whose generator is a denoiser of masked codes."""

    decoder: ClassVar[str] = "diffusion"

    def __init__(
        self, shape: NetworkShape, trie: Trie, text: Tensor, codes: Tensor, trained: Tensor
    ) -> None:
        super().__init__(shape, trie, text, codes, trained)
        del self.generator  # the denoiser stands in its place
        self.ordered_levels = ordered_levels(trie, shape.category_levels)
        self.denoiser = Denoiser(shape)
        largest = max(shape.codebook_sizes)
        counts = [torch.bincount(column, minlength=largest) for column in self.codes.T]
        self.code_offsets = nn.Parameter(torch.zeros(len(counts), largest, shape.width))
        self.code_biases = nn.Parameter(torch.stack(counts).clamp(min=1).float().log())

    def evidence_weights(self) -> list[float]:
        """Only the item head reads evidence: codes unmasked in any order have no node."""
        return [0.0] * len(self.branching) + [self.head_evidence_weight.item()]

    def code_table(self, items: Tensor) -> CodeTensors:
        """Vectors and biases of all codes, from the item vectors [N, D]."""
        means = []
        for level, offsets in enumerate(self.code_offsets):
            sums = torch.zeros_like(offsets).index_add(0, self.codes[:, level], items)
            counts = torch.bincount(self.codes[:, level], minlength=len(offsets))
            means.append(sums / counts.clamp(min=1).unsqueeze(1))
        return CodeTensors(torch.stack(means) + self.code_offsets, self.code_biases)
