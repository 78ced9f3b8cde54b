"""The masked-diffusion decoder in place of the autoregressive one, on the same encoder.

Code vector    V_pc = mean of the vectors of the items with code c at position p + offset_pc
Denoiser       log p(code c at p | unmasked codes, h) = softmax_c(q_p . V_pc + b_pc + beta_p e_pc),
               q = h + MLP([h, t_1 .. t_L]),  t_p = V_pc where code c of position p is known,
               else the mask of p
Item choice    softmax over the items that share all codes of q_item . v_i + b_i + beta_item e_i

e_pc is the logarithm of the evidence of the items that have the code and the unmasked ones.
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
from model.training.network import EVIDENCE_WEIGHT, Network, NetworkShape
from model.trie import Trie

HIDDEN = 4
"""Width of the denoiser's hidden layer, in D."""


@dataclass(frozen=True)
class CodeTensors:
    """What is known of every code; codes that a level does not have are never asked for."""

    vectors: Tensor
    """[L, K, D]"""
    biases: Tensor
    """[L, K]"""
    inputs: Tensor
    """What each code, and after all codes the mask, adds to the denoiser's hidden layer
    [L, K + 1, H]."""


class Denoiser(nn.Module):
    """What each masked position, and the choice of an item, ask for; H is the hidden width."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        levels, width = len(shape.codebook_sizes), shape.width
        self.masks = nn.Parameter(0.02 * torch.randn(levels, width))
        self.inner = nn.Linear((levels + 1) * width, HIDDEN * width)
        self.dropout = nn.Dropout(shape.dropout)
        self.outer = nn.Linear(HIDDEN * width, (levels + 1) * width)
        # Of each position and, last, of the item.
        self.evidence_weights = nn.Parameter(torch.full((levels + 1,), EVIDENCE_WEIGHT))

    def forward(self, h: Tensor, codes: Tensor, table: CodeTensors) -> Tensor:
        """Queries [..., L + 1, D] of each position and, last, of the item.

        Args:
            h: encoded histories [..., D]; lengths of 1 stand for many.
            codes: [..., L], negative where masked.
            table: what is known of the codes.
        """
        return self.queries(h, self.hidden(h, codes, table))

    def table(self, vectors: Tensor, biases: Tensor) -> CodeTensors:
        """What is to be known of codes with these `vectors` [L, K, D] and `biases` [L, K].

        Positions hold the same few codes over and over: putting each code through its part of the
        hidden layer once is several times cheaper than putting every position through all of it.
        """
        levels, width = self.masks.shape
        tokens = torch.cat([vectors, self.masks.unsqueeze(1)], dim=1)
        weight = self.inner.weight[:, width:].view(-1, levels, width)
        return CodeTensors(vectors, biases, torch.matmul(tokens, weight.permute(1, 2, 0)))

    def hidden(self, h: Tensor, codes: Tensor, table: CodeTensors) -> Tensor:
        """The hidden layer [..., H]; arguments as of `forward`."""
        width, mask = self.masks.shape[1], table.inputs.shape[1] - 1
        heard = functional.linear(h, self.inner.weight[:, :width], self.inner.bias)
        for level, inputs in enumerate(table.inputs.unbind()):
            code = torch.where(codes[..., level] < 0, mask, codes[..., level])
            heard = heard + functional.embedding(code, inputs)
        return functional.gelu(heard)

    def queries(self, h: Tensor, hidden: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """Queries of the positions from `first` until `end`, the item's being the last of all.

        Args:
            h: as of `forward`.
            hidden: [..., H].
            first: the first position.
            end: the one after the last; all when not given.

        Returns:
            [..., end - first, D]
        """
        width = self.masks.shape[1]
        rows = slice(first * width, None if end is None else end * width)
        asked = functional.linear(
            self.dropout(hidden), self.outer.weight[rows], self.outer.bias[rows]
        )
        return h.unsqueeze(-2) + asked.reshape(*asked.shape[:-1], -1, width)


def code_logits(queries: Tensor, table: CodeTensors, first: int = 0) -> Tensor:
    """Logits [W, L - first, K] of the codes of the levels from `first` on.

    Args:
        queries: of these levels, and maybe of the item [W, >= L - first, D].
        table: what is known of the codes.
        first: the first level.
    """
    vectors, biases = table.vectors[first:], table.biases[first:]
    asked = queries[:, : biases.shape[0]].transpose(0, 1)
    return torch.matmul(asked, vectors.transpose(1, 2)).transpose(0, 1) + biases


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
        """See `Network.evidence_weights`; positions stand for depths."""
        choices = self.denoiser.evidence_weights.detach().tolist()
        return [*choices, self.head_evidence_weight.item()]

    def generator_parameters(self) -> list[nn.Parameter]:
        """See `Network.generator_parameters`."""
        return [*self.denoiser.parameters(), self.code_offsets, self.code_biases, self.biases]

    def code_table(self, items: Tensor) -> CodeTensors:
        """Vectors and biases of all codes, from the item vectors [N, D]."""
        means = []
        for level, offsets in enumerate(self.code_offsets):
            sums = torch.zeros_like(offsets).index_add(0, self.codes[:, level], items)
            counts = torch.bincount(self.codes[:, level], minlength=len(offsets))
            means.append(sums / counts.clamp(min=1).unsqueeze(1))
        return self.denoiser.table(torch.stack(means) + self.code_offsets, self.code_biases)
