"""Beam search over the trie as tensor operations, and the modules that are exported to ONNX.

`model/beam_search.py` says the same in NumPy, step by step, and is the one to read first. The
search here takes a batch of histories and is run by validation; `decoder_graph.py` writes the one
that is served.
Shapes: B histories, W beams, C children, D width, L levels, M nodes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.training.evidence import BatchEvidence
from model.training.network import Generator, LevelQuery, Network, TreeTensors, child_log_probs

NEVER = float("-inf")


class Beams(NamedTuple):
    """The items that a search reached, best first; places left over have log-probability -inf."""

    nodes: Tensor
    """[B, W] item nodes"""
    log_probs: Tensor
    """[B, W, L + 1], one per choice from coarse to fine; their sum orders the beams"""
    pruned: Tensor
    """[B, L + 1] log-probability of the best legal prefix that each choice left behind"""


def beam_search(
    generator: Generator,
    h: Tensor,
    tree: TreeTensors,
    alive: Tensor,
    sizes: tuple[Tensor, ...],
    evidence: BatchEvidence | None = None,
) -> Beams:
    """Search the trie for the W most probable items of each history.

    Args:
        generator: gives the query at each node.
        h: encoded histories [B, D].
        tree: trie, node vectors and biases.
        alive: [M], legal items below each node; prefixes without any are never followed.
        sizes: `beams` [W] and then `slots` [C_depth] for depth 0 .. L. Only their lengths (W) and
            the values 0 .. C - 1 matter: lengths that come with the data keep the graph general.
        evidence: of transitions, for each history; None where `tree` has it in its biases.
    """
    beams, *slots = sizes
    batch, width = h.shape[0], beams.shape[0]
    nodes = torch.zeros(batch, 1, dtype=torch.long, device=h.device)
    totals = h.new_zeros(batch, 1)
    steps = h.new_zeros(batch, 1, 0)
    pruned = []
    spare = h.new_full((batch, width + 1), NEVER)
    for depth, places in enumerate(slots):
        # 1. Score all children that exist, then forbid those without a legal item below.
        children, taken = tree.children(nodes, places)
        parents = tree.vectors[nodes]
        query = generator.query(depth, h.unsqueeze(1).expand_as(parents), parents)
        known: Tensor | float = 0.0
        if evidence is not None:
            logs = evidence.of(depth, torch.arange(batch, device=h.device)[:, None, None], children)
            known = generator.evidence_weights[depth] * logs
        log_probs = child_log_probs(query, children, taken, tree, known)
        legal = taken & (alive[children] > 0)
        scores = (totals.unsqueeze(-1) + log_probs).masked_fill(~legal, NEVER)
        # 2. Keep the best W; the spare places make sure that there are W + 1 candidates.
        candidates = torch.cat([scores.flatten(1), spare], dim=1)
        best, index = torch.topk(candidates, width + 1, dim=1)
        totals, index = best[:, :width], index[:, :width]
        pruned.append(best[:, width])
        # 3. Step down. A spare place stands for no child: any number does, its score is -inf.
        index = index.clamp(max=children.shape[1] * children.shape[2] - 1)
        nodes = children.flatten(1).gather(1, index)
        chosen = log_probs.flatten(1).gather(1, index).unsqueeze(-1)
        source = torch.div(index, places.shape[0], rounding_mode="floor").unsqueeze(-1)
        steps = torch.cat([steps.gather(1, source.expand(-1, -1, depth)), chosen], dim=2)
    steps = steps.masked_fill((totals == NEVER).unsqueeze(-1), NEVER)
    return Beams(nodes, steps, torch.stack(pruned, dim=1))


class StepGraph(nn.Module):
    """step.onnx: one level, for searches that stop early, explore or are checked."""

    inner_weight: Tensor
    inner_bias: Tensor
    outer_weight: Tensor
    outer_bias: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        # The depth is an input, so the weights of all depths are stacked and one is picked.
        levels = [level for level in network.generator.levels if isinstance(level, LevelQuery)]
        stacked: dict[str, list[Tensor]] = {
            "inner_weight": [level.inner.weight for level in levels],
            "inner_bias": [level.inner.bias for level in levels],
            "outer_weight": [level.outer.weight for level in levels],
            "outer_bias": [level.outer.bias for level in levels],
        }
        for name, tensors in stacked.items():
            self.register_buffer(name, torch.stack(tensors).detach())

    def forward(  # noqa: PLR0913, PLR0917 - the graph's inputs, in their exported order
        self,
        h: Tensor,
        nodes: Tensor,
        depth: Tensor,
        child_start: Tensor,
        vectors: Tensor,
        biases: Tensor,
        slots: Tensor,
    ) -> Tensor:
        """Return log-probabilities [W, C] of the children of `nodes` [W] of one `depth` [1]."""
        tree = TreeTensors(child_start, vectors, biases)
        parents = vectors[nodes]
        x = torch.cat([h.unsqueeze(0).expand_as(parents), parents], dim=-1)
        x = functional.gelu(x @ self.inner_weight[depth[0]].T + self.inner_bias[depth[0]])
        outer = x @ self.outer_weight[depth[0]].T + self.outer_bias[depth[0]]
        children, taken = tree.children(nodes, slots)
        log_probs = child_log_probs(h + outer, children, taken, tree)
        return log_probs.masked_fill(~taken, NEVER)


class EncoderGraph(nn.Module):
    """encoder.onnx: vectors of one history's items [T, D] -> h [D]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.history_encoder = network.history_encoder

    def forward(self, items: Tensor) -> Tensor:
        """The encoding of the newest position."""
        h: Tensor = self.history_encoder.newest(items.unsqueeze(0))[0]
        return h


class ItemEncoderGraph(nn.Module):
    """item_encoder.onnx: text features [N, E] and codes [N, L] -> item vectors [N, D]."""

    text_basis: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.item_encoder = network.item_encoder
        self.register_buffer("text_basis", network.text_basis)

    def forward(self, text: Tensor, codes: Tensor) -> Tensor:
        """Vectors of items that training never saw."""
        return self.item_encoder.describe(text @ self.text_basis, codes)
