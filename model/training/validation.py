"""Validation while training: the three rankings on users held out, in batches.

`evaluate` measures the exported bundle through the code that serves it; this is the fast
approximation that decides when to stop, and the place where the fusion weight is chosen.
Shapes: B histories, N items, W beams.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.training.diffusion_batches import BatchSearch
from model.training.diffusion_network import DiffusionNetwork
from model.training.evaluation.metrics import ndcg_at
from model.training.evidence import BatchEvidence, history_evidence
from model.training.histories import HeldOut
from model.training.network import Network, TreeTensors
from model.training.search_graph import beam_search
from model.training.training_set import padded
from model.transitions import Transitions
from model.types import AnyArray, IntArray

FUSION_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 4.0)
"""Weights of the item term that validation chooses from."""

BATCH = 64


@dataclass(frozen=True)
class ValidationScores:
    """NDCG@10 of the three rankings, seen items masked."""

    generator: float
    item_head: float
    served: float
    fusion_weight: float
    """The weight of `served`: the best of `FUSION_WEIGHTS`."""


@torch.no_grad()
def validate(
    network: Network, transitions: Transitions, task: HeldOut, beam_width: int
) -> ValidationScores:
    """Rank every task's target among all items three ways.

    Args:
        network: is put into evaluation mode and back.
        transitions: of the training histories.
        task: histories in leaves, and the target of each.
        beam_width: W of the search behind `generator` and `served`.
    """
    network.eval()
    device = network.text.device
    items = network.item_vectors()
    tree = network.tree(items)
    ranks: dict[str, list[AnyArray]] = {"head": [], "fused": []}
    order = np.argsort([len(history) for history in task.inputs], kind="stable")
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        newest = [task.inputs[row][-network.shape.history_length :] for row in rows]
        leaves, real = (tensor.to(device) for tensor in padded(newest))
        encoded = network.history_encoder(items[leaves])
        h = encoded[torch.arange(len(rows), device=device), real.sum(1) - 1]
        targets = torch.from_numpy(task.targets[rows].astype(np.int64)).to(device)
        seen, seen_real = (tensor.to(device) for tensor in padded([task.inputs[r] for r in rows]))
        hidden = torch.zeros(len(rows), len(items), dtype=torch.bool, device=device)
        hidden.scatter_(1, torch.where(seen_real, seen, seen[:, :1]), value=True)
        evidence = history_evidence(network, transitions, [task.inputs[row] for row in rows])
        known = _head_terms(network, evidence, hidden.shape)
        ranks["head"].append(_dense_ranks(h @ items.T + known, hidden, targets))
        leaves, totals = _search(network, h, tree, evidence, beam_width)
        affinities = (items[leaves] @ h.unsqueeze(-1)).squeeze(-1) + known.gather(1, leaves)
        ranks["fused"].append(_fused_ranks(leaves, totals, affinities, hidden, targets))
    network.train()
    fused = np.concatenate(ranks["fused"])
    served = [ndcg_at(fused[:, column], 10) for column in range(len(FUSION_WEIGHTS))]
    best = int(np.argmax(served))
    head = ndcg_at(np.concatenate(ranks["head"]), 10)
    return ValidationScores(served[0], head, served[best], FUSION_WEIGHTS[best])


def _dense_ranks(scores: Tensor, hidden: Tensor, targets: Tensor) -> AnyArray:
    """Rank [B] of each target among items that are not hidden; 0 when it is hidden itself."""
    own = scores.gather(1, targets.unsqueeze(1))
    above = ((scores > own) & ~hidden).sum(1) + 1
    return torch.where(hidden.gather(1, targets.unsqueeze(1))[:, 0], 0, above).cpu().numpy()


def _head_terms(network: Network, evidence: BatchEvidence, shape: tuple[int, ...]) -> Tensor:
    """What evidence adds to the item head's logits [B, N]."""
    position, leaf, logs = evidence.items(network.depth_start[-2])
    terms = torch.zeros(*shape, device=logs.device)
    terms[position, leaf] = network.head_evidence_weight * logs
    return terms


def _fused_ranks(
    leaves: Tensor, totals: Tensor, affinities: Tensor, hidden: Tensor, targets: Tensor
) -> AnyArray:
    """Rank [B, len(FUSION_WEIGHTS)] of each target among the items the search reached; 0 = not.

    Args:
        leaves: that the search reached [B, W].
        totals: their log-probabilities [B, W], -inf in places left over.
        affinities: the item head's opinion of them [B, W].
        hidden: items that may not be recommended [B, N].
        targets: [B].
    """
    lost = hidden.gather(1, leaves) | ~torch.isfinite(totals)
    ranks: list[IntArray] = []
    for weight in FUSION_WEIGHTS:
        scores = (totals + weight * affinities).masked_fill(lost, float("-inf"))
        hit = (leaves == targets.unsqueeze(1)) & ~lost
        own = scores.masked_fill(~hit, float("-inf")).amax(1, keepdim=True)
        above = (scores > own).sum(1) + 1
        ranks.append(torch.where(hit.any(1), above, 0).cpu().numpy())
    return np.stack(ranks, axis=1)


def _search(
    network: Network, h: Tensor, tree: TreeTensors, evidence: BatchEvidence, width: int
) -> tuple[Tensor, Tensor]:
    """Leaves and log-probabilities [B, W] that the network's own search reaches."""
    if isinstance(network, DiffusionNetwork):
        return BatchSearch(network, tree, width).search(h, evidence)
    alive = torch.ones_like(network.biases)
    sizes = (width, *network.branching)
    lengths = tuple(torch.arange(size, device=h.device) for size in sizes)
    found = beam_search(network.generator, h, tree, alive, lengths, evidence)
    return found.nodes - network.depth_start[-2], found.log_probs.sum(-1)
