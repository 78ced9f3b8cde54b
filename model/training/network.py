"""The network: item vectors, history encoder, generator over trie nodes, item head.

Item vector      v_i = id_i + W text_i + sum_l code_l[c_il]            (id_i dropped at random)
History encoder  h   = causal transformer over the vectors of the history's items
Node vector      v_n = mean of the item vectors below n + offset_n      (items are their own node)
Generator        p(child c | node n, h) = softmax_c(q . v_c + b_c + beta_depth e_c),
                 q = h + MLP_depth([h, v_n])
Item head        p(i | h) = softmax_i(h . v_i + beta e_i)

e is the logarithm of the evidence that transitions give (`model/transitions.py`).

Node vectors as outputs instead of code embeddings let the generator share what the item head
learns. Shapes: B histories, T positions, P training positions, N items, M trie nodes, I inner
nodes, D width, C children, E width of an item's text features, F of their principal components.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.trie import Trie

ABSENT = -1e9
"""Logit of a child that does not exist; finite, so that no NaN can arise from it."""

EVIDENCE_WEIGHT = 0.5
"""Every beta before training."""


@dataclass(frozen=True)
class NetworkShape:
    """What fixes the sizes of all parameters."""

    width: int
    blocks: int
    heads: int
    history_length: int
    text_width: int
    """F, principal components of the text features"""
    codebook_sizes: tuple[int, ...]
    dropout: float
    input_dropout: float
    """of the numbers of the items that are read"""
    id_dropout: float
    category_levels: int = 1
    """Leading levels that spell the category"""
    positions: bool = True
    """Whether places in a history have an embedding"""
    level_layers: bool = True
    """Whether each level of the generator has layers of its own"""


class ItemEncoder(nn.Module):
    """Text features and codes -> item vector; trained items add a vector of their own."""

    def __init__(self, shape: NetworkShape, items: int) -> None:
        super().__init__()
        self.id_dropout = shape.id_dropout
        self.identity = nn.Embedding(items, shape.width)
        self.codes = nn.ModuleList(nn.Embedding(k, shape.width) for k in shape.codebook_sizes)
        self.text = nn.Linear(shape.text_width, shape.width, bias=False)
        for embedding in (self.identity, *self.codes):
            nn.init.normal_(embedding.weight, std=0.02)

    def describe(self, text: Tensor, codes: Tensor) -> Tensor:
        """Vectors [N, D] of items known by `text` [N, F] and `codes` [N, L] alone."""
        vectors: Tensor = self.text(text)
        for level, embedding in enumerate(self.codes):
            vectors = vectors + embedding(codes[:, level])
        return vectors

    def forward(self, text: Tensor, codes: Tensor, trained: Tensor) -> Tensor:
        """Vectors [N, D] of the catalogue; `trained` [N, 1] is 0 for items never trained on."""
        identity = self.identity.weight * trained
        if self.training and self.id_dropout:
            kept = torch.rand(len(identity), 1, device=identity.device) >= self.id_dropout
            identity = identity * kept
        return self.describe(text, codes) + identity


class Block(nn.Module):
    """One pre-norm causal transformer block."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(shape.dropout),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]; position t reads positions 0 .. t."""
        projected = self.query_key_value(self.attention_norm(x))
        query, key, value = self._split(projected, 3)
        read = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self._combine(x, read)

    def newest(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, 1, D]: what `forward` says of the last position, for less work."""
        normed, width = self.attention_norm(x), x.shape[2]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        asked = functional.linear(normed[:, -1:], weight[:width], bias[:width])
        (query,) = self._split(asked, 1)
        key, value = self._split(functional.linear(normed, weight[width:], bias[width:]), 2)
        read = functional.scaled_dot_product_attention(query, key, value)
        return self._combine(x[:, -1:], read)

    def _split(self, projected: Tensor, parts: int) -> Tensor:
        """[B, T, parts * D] -> [parts, B, heads, T, D / heads]."""
        batch, length, width = projected.shape
        split = projected.view(batch, length, parts, self.heads, width // parts // self.heads)
        return split.permute(2, 0, 3, 1, 4)

    def _combine(self, x: Tensor, read: Tensor) -> Tensor:
        x = x + self.dropout(self.mix(read.transpose(1, 2).reshape(x.shape)))
        out: Tensor = x + self.dropout(self.feed_forward(x))
        return out


class HistoryEncoder(nn.Module):
    """Vectors of a history's items -> one vector per position, which sums up all before it."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.position: nn.Embedding | None = None
        if shape.positions:
            self.position = nn.Embedding(shape.history_length, shape.width)
            nn.init.normal_(self.position.weight, std=0.02)
        self.entry_norm = nn.LayerNorm(shape.width)
        self.dropout = nn.Dropout(shape.input_dropout)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.exit_norm = nn.LayerNorm(shape.width)

    def forward(self, items: Tensor) -> Tensor:
        """Item vectors [B, T, D], oldest first, padding last -> [B, T, D]."""
        x = self._enter(items)
        for block in self.blocks:
            x = block(x)
        encoded: Tensor = self.exit_norm(x)
        return encoded

    def newest(self, items: Tensor) -> Tensor:
        """Item vectors [B, T, D] without padding -> [B, D], the encoding of the last position."""
        x = self._enter(items)
        *lower, last = [block for block in self.blocks if isinstance(block, Block)]
        for block in lower:
            x = block(x)
        encoded: Tensor = self.exit_norm(last.newest(x))[:, 0]
        return encoded

    def _enter(self, items: Tensor) -> Tensor:
        if self.position is not None:
            items = items + self.position.weight[: items.shape[1]]
        entered: Tensor = self.dropout(self.entry_norm(items))
        return entered


class LevelQuery(nn.Module):
    """What one depth asks of its children, from h and the vector of the node it stands at."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.inner = nn.Linear(2 * shape.width, 2 * shape.width)
        self.dropout = nn.Dropout(shape.dropout)
        self.outer = nn.Linear(2 * shape.width, shape.width)

    def forward(self, h: Tensor, parents: Tensor) -> Tensor:
        """H and node vectors, both [..., D] -> [..., D]."""
        hidden = functional.gelu(self.inner(torch.cat([h, parents], dim=-1)))
        query: Tensor = h + self.outer(self.dropout(hidden))
        return query


class Generator(nn.Module):
    """Log-probabilities of a trie node's children, given the encoded history."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        depths = len(shape.codebook_sizes) + 1
        distinct = [LevelQuery(shape) for _ in range(depths if shape.level_layers else 1)]
        # All depths may name the same layers: whoever reads them need not know.
        self.levels = nn.ModuleList(distinct if shape.level_layers else distinct * depths)
        self.evidence_weights = nn.Parameter(torch.full((depths,), EVIDENCE_WEIGHT))

    def query(self, depth: int, h: Tensor, parents: Tensor) -> Tensor:
        """Turn h and nodes' vectors, both [..., D], into what their children are asked [..., D]."""
        query: Tensor = self.levels[depth](h, parents)
        return query


def principal_directions(text: Tensor, count: int) -> Tensor:
    """The directions [E, count] that keep most of the text features [N, E].

    Several embeddings side by side are wide and nearly redundant; projecting all of them anew in
    every step would be a third of the cost of training.
    """
    directions: Tensor = torch.linalg.eigh(text.T @ text).eigenvectors  # eigenvalues ascend
    return directions[:, -count:].flip(1).contiguous()


@dataclass(frozen=True)
class TreeTensors:
    """What the search reads: the trie and a vector and a bias per node."""

    child_start: Tensor
    """[I + 1]"""
    vectors: Tensor
    """[M, D]"""
    biases: Tensor
    """[M]"""

    def children(self, parents: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Children [..., C] of `parents` [...], and which of the C = len(slots) places are taken.

        Places that are not taken repeat the first child, so that every number is a node's.
        """
        first = self.child_start[parents]
        count = self.child_start[parents + 1] - first
        taken = slots < count.unsqueeze(-1)
        return first.unsqueeze(-1) + torch.where(taken, slots, 0), taken


def child_log_probs(
    query: Tensor, nodes: Tensor, taken: Tensor, tree: TreeTensors, evidence: Tensor | float = 0.0
) -> Tensor:
    """Log-probabilities [..., C] of children `nodes` [..., C] under `query` [..., D].

    `evidence` [..., C] is added to the logits.

    Normalised over all children that exist, whatever filters say (design: scores stay comparable).
    """
    logits = (tree.vectors[nodes] @ query.unsqueeze(-1)).squeeze(-1) + tree.biases[nodes] + evidence
    return torch.log_softmax(logits.masked_fill(~taken, ABSENT), dim=-1)


class Network(nn.Module):
    """All parts over one catalogue, items in leaf order."""

    decoder: ClassVar[str] = "autoregressive"
    """What writes the codes."""
    text: Tensor
    text_basis: Tensor
    codes: Tensor
    trained: Tensor
    child_start: Tensor
    leaf_start: Tensor
    leaf_end: Tensor
    parents: Tensor

    def __init__(
        self, shape: NetworkShape, trie: Trie, text: Tensor, codes: Tensor, trained: Tensor
    ) -> None:
        super().__init__()
        self.shape = shape
        self.depth_start = trie.depth_start
        self.branching = trie.branching
        inner = trie.item_start
        counts = torch.from_numpy(np.diff(trie.child_start).astype(np.int64))
        basis = principal_directions(text, shape.text_width)
        self.register_buffer("text_basis", basis)
        self.register_buffer("text", torch.empty(0), persistent=False)
        self.project(text)
        self.register_buffer("codes", codes.long(), persistent=False)
        self.register_buffer("trained", trained.float().unsqueeze(1), persistent=False)
        child_start = torch.from_numpy(trie.child_start.astype(np.int64))
        self.register_buffer("child_start", child_start, persistent=False)
        # Parent of node m (the root, node 0, has none) at index m - 1.
        parents = torch.repeat_interleave(torch.arange(inner), counts)
        self.register_buffer("parents", parents, persistent=False)
        # The items below node m are the leaves leaf_start[m] .. leaf_end[m] - 1.
        leaf_start, leaf_end = self._leaf_ranges(trie)
        self.register_buffer("leaf_start", leaf_start, persistent=False)
        self.register_buffer("leaf_end", leaf_end, persistent=False)
        self.item_encoder = ItemEncoder(shape, trie.item_count)
        self.history_encoder = HistoryEncoder(shape)
        self.generator = Generator(shape)
        self.offsets = nn.Parameter(torch.zeros(inner, shape.width))
        self.biases = nn.Parameter(torch.log((leaf_end - leaf_start).float()))
        self.head_evidence_weight = nn.Parameter(torch.tensor(EVIDENCE_WEIGHT))
        # Nodes of depth 1 .. L + 1 above and at each leaf [N, L + 1].
        self.ancestors = trie.paths(np.arange(trie.item_count))[:, 1:]

    def evidence_weights(self) -> list[float]:
        """Beta of the choices at depth 0 .. L, and of the item head: L + 2 numbers."""
        choices = self.generator.evidence_weights.detach().tolist()
        return [*choices, self.head_evidence_weight.item()]

    def project(self, text: Tensor) -> None:
        """Read the text features [N, E] through `text_basis`.

        Needed anew after loading parameters: they bring the basis of the machine that trained,
        and another one may compute it with other signs.
        """
        self.text = text.to(self.text_basis.device) @ self.text_basis

    @staticmethod
    def _leaf_ranges(trie: Trie) -> tuple[Tensor, Tensor]:
        """First and end leaf below every node, int64 [M] each."""
        first = np.arange(trie.node_count) - trie.item_start
        end = first + 1
        for depth in range(trie.levels + 1):
            nodes = np.arange(trie.depth_start[depth], trie.depth_start[depth + 1])
            first[nodes], end[nodes] = trie.leaf_ranges(nodes, depth)
        return torch.from_numpy(first), torch.from_numpy(end)

    def generator_parameters(self) -> list[nn.Parameter]:
        """What only the writing of codes depends on; neither histories nor item vectors do."""
        return [*self.generator.parameters(), self.offsets, self.biases]

    def item_vectors(self) -> Tensor:
        """[N, D], leaf order."""
        vectors: Tensor = self.item_encoder(self.text, self.codes, self.trained)
        return vectors

    def tree(self, items: Tensor) -> TreeTensors:
        """Vectors and biases of all nodes, from the item vectors [N, D]."""
        sums = [items]
        for depth in range(len(self.depth_start) - 3, -1, -1):
            here, after, end = self.depth_start[depth : depth + 3]
            total = items.new_zeros(after - here, items.shape[1])
            sums.append(total.index_add(0, self.parents[after - 1 : end - 1] - here, sums[-1]))
        count = len(self.offsets)
        below = (self.leaf_end[:count] - self.leaf_start[:count]).unsqueeze(1)
        inner = torch.cat(sums[:0:-1]) / below
        return TreeTensors(self.child_start, torch.cat([inner + self.offsets, items]), self.biases)

    def path_nodes(self, leaves: Tensor) -> Tensor:
        """Nodes from the root to each leaf [..., L + 2]."""
        nodes = [leaves + self.depth_start[-2]]
        for _ in range(len(self.depth_start) - 2):
            nodes.append(self.parents[nodes[-1] - 1])
        return torch.stack(nodes[::-1], dim=-1)
