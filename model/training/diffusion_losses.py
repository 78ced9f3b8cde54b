"""What a denoiser is trained to say: the ordered levels one by one, the others by masked diffusion.

    sum over ordered levels of -log p(code | codes before it, h)
    + 1/r * sum over masked positions beyond of -log p(code | unmasked codes, h)
    - log p(item | codes, h)

This is what the search asks, and an upper bound of -log p(item | h), on the same scale as the
autoregressive generator's loss. Every history teaches every ordered level, since that part of the
chain has only one order. Of the F other positions a share r, drawn anew for every history, is
masked, and the sum is weighed by 1/r (MDLM, LLaDA, MindRec). As the generator's, most of the loss
can be to the item head's opinion: what it gives to all items with a code, of those that have the
unmasked codes. The codes of exactly those items are normalised over, as in the search, and what
transitions say of them is added to the logits.

Shapes: P training positions, N items, L levels, F levels that are unmasked in any order, K codes
of the largest level, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.training.code_evidence import code_evidence
from model.training.diffusion_network import CodeTensors, DiffusionNetwork, code_logits
from model.training.losses import (
    LOGITS_AT_ONCE,
    Choices,
    HeadEvidence,
    Positions,
    choice_log_probs,
    item_head_loss,
    path_choices,
)
from model.training.network import ABSENT, TreeTensors

TINY = 1e-30
"""The least a head may give to an item: zero would read as that the code does not occur."""


@dataclass(frozen=True)
class Masking:
    """How many of the codes that are unmasked in any order are masked."""

    least_ratio: float = 0.0
    """Smallest share of masked codes; high values train the early steps of the search more."""

    def draw(self, positions: int, levels: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw which codes are masked, bool [P, F], and their share r [P]."""
        least = max(1, round(self.least_ratio * levels))
        masked_codes = torch.randint(least, levels + 1, (positions, 1), device=device)
        rank = torch.rand(positions, levels, device=device).argsort(dim=1)
        return rank < masked_codes, masked_codes[:, 0] / levels


@dataclass(frozen=True)
class Objective:
    """What of a history's next item is learned, and how."""

    masking: Masking
    distillation: float
    """Share of the denoiser's loss that is to the item head's opinion; the rest is to the target's
    codes."""
    label_smoothing: float = 0.0
    """What of the item head's targets is spread over all items."""


def diffusion_losses(
    network: DiffusionNetwork, positions: Positions, items: Tensor, objective: Objective
) -> tuple[Tensor, Tensor]:
    """The item head's and the denoiser's mean loss.

    Args:
        network: holds the denoiser.
        positions: where the next item is learned.
        items: item vectors [N, D].
        objective: what is learned.
    """
    h, targets = positions.h, positions.targets
    table, tree, ordered = network.code_table(items), network.tree(items), network.ordered_levels
    *choices, bucket = path_choices(network, targets, tree)
    asked = [*choices[:ordered], bucket]
    head, taught = item_head_loss(network, positions, items, asked, objective.label_smoothing)
    known, share = (h, network.codes[targets], table), objective.distillation
    logs = _evidence_terms(network, positions, bucket, len(network.branching) - 1)
    log_probs = _item_log_probs(network, tree, known, bucket, logs)
    total = -_expected(log_probs, bucket, taught[-1], share)
    for depth, said in enumerate(taught[:-1]):
        logs = _evidence_terms(network, positions, choices[depth], depth)
        log_probs = _code_log_probs(network, known, choices[depth], depth, logs)
        total = total - _expected(log_probs, choices[depth], said, share)
    loss = total / len(h)
    if free := network.codes.shape[1] - ordered:
        masked, ratio = objective.masking.draw(len(h), free, h.device)
        said = head_opinion(network, positions, items, masked)
        logs = code_evidence(network, positions.evidence, targets, masked)
        loss = loss + denoiser_loss(network, known, Masked(masked, ratio, said, logs), share)
    return head, loss


def _expected(log_probs: Tensor, choice: Choices, taught: Tensor, share: float) -> Tensor:
    """Summed log-probability [R, C] of the right choices and of those that the head would make."""
    own = log_probs.gather(1, choice.place.unsqueeze(1)).sum()
    return (1 - share) * own + share * (taught * log_probs.clamp(min=-60)).sum()


Known = tuple[Tensor, Tensor, CodeTensors]
"""h [P, D], the targets' codes [P, L], and what is known of all codes."""


def _evidence_terms(
    network: DiffusionNetwork, positions: Positions, choice: Choices, depth: int
) -> Tensor:
    """What evidence adds to the logits of the children that exist, in their order."""
    row = choice.taken.nonzero()[:, 0]
    node = choice.nodes[choice.taken]
    logs = positions.evidence.of(depth, choice.position[row], node)
    return network.denoiser.evidence_weights[depth] * logs


def _code_log_probs(
    network: DiffusionNetwork, known: Known, choice: Choices, depth: int, evidence: Tensor
) -> Tensor:
    """Log-probabilities [R, C] of the children at an ordered level, the codes before it known."""
    h, codes, table = known
    own = h.index_select(0, choice.position)
    partly = codes[choice.position]
    partly[:, depth:] = -1
    hidden = network.denoiser.hidden(own, partly, table)
    query = network.denoiser.queries(own, hidden, depth, depth + 1)[:, 0]
    logits = query @ table.vectors[depth].T + table.biases[depth]
    logits = logits.gather(1, network.codes[network.leaf_start[choice.nodes], depth])
    existing = logits[choice.taken] + evidence
    logits = existing.new_full(logits.shape, ABSENT).masked_scatter(choice.taken, existing)
    return logits.log_softmax(dim=1)


def _item_log_probs(
    network: DiffusionNetwork, tree: TreeTensors, known: Known, bucket: Choices, evidence: Tensor
) -> Tensor:
    """Log-probabilities [R, C] of the items that share all codes."""
    h, codes, table = known
    own = h.index_select(0, bucket.position)
    hidden = network.denoiser.hidden(own, codes[bucket.position], table)
    query = network.denoiser.queries(own, hidden, first=codes.shape[1])[:, 0]
    return choice_log_probs(query, bucket, tree, evidence)


@torch.no_grad()
def head_opinion(
    network: DiffusionNetwork, positions: Positions, items: Tensor, masked: Tensor
) -> Tensor:
    """What the item head gives to the codes of the items that have all unmasked codes [P, F, K].

    Those are looked for among the items of the target's category. Not normalised; zero exactly
    where no such item has the code.

    Args:
        network: knows the categories.
        positions: where the next item is learned.
        items: item vectors [N, D].
        masked: which of the codes beyond the ordered levels are masked [P, F].
    """
    ordered, largest = network.ordered_levels, network.code_biases.shape[1]
    h, targets, done = positions.h, positions.targets, 0
    categories, order = network.path_nodes(targets)[:, ordered].sort()
    evidence = _evidence_in_category(network, positions, (categories, order))
    said = h.new_zeros(*masked.shape, largest)
    for rows, leaves in _by_category(network, categories, order):
        codes = network.codes[leaves, ordered:]
        # Items first: adding up whole rows of positions is several times faster than columns.
        scores = items[leaves] @ h[rows].T
        column, leaf, logs = evidence.rows(done, len(rows))
        done += len(rows)
        known = network.head_evidence_weight * logs
        scores[leaf - leaves.start, column] += known.to(scores.dtype)
        shares = scores.softmax(dim=0)
        agree = torch.ones_like(shares, dtype=torch.bool)
        for level, own in enumerate(network.codes[targets[rows], ordered:].T):
            agree &= (codes[:, level : level + 1] == own) | masked[rows, level]
        shares = torch.where(agree, shares.clamp(min=TINY), 0.0)
        sums = [
            shares.new_zeros(largest, len(rows)).index_add_(0, level, shares).T for level in codes.T
        ]
        said[rows] = torch.stack(sums, dim=1).to(said.dtype)
    return said


def _evidence_in_category(
    network: DiffusionNetwork, positions: Positions, by_category: tuple[Tensor, Tensor]
) -> HeadEvidence:
    """The evidence of the items in the categories of the targets, its columns being leaves.

    Args:
        network: knows the categories.
        positions: where the next item is learned.
        by_category: the targets' categories, ascending, and the positions in that order, both [P];
            the positions of what is returned are places in it.
    """
    categories, order = by_category
    position, leaf, logs = positions.evidence.items(network.depth_start[-2])
    place = order.argsort()[position]
    own = categories[place]
    inside = (network.leaf_start[own] <= leaf) & (leaf < network.leaf_end[own])
    place, index = place[inside].sort()
    return HeadEvidence(place, leaf[inside][index], logs[inside][index])


def _by_category(
    network: DiffusionNetwork, categories: Tensor, order: Tensor
) -> Iterator[tuple[Tensor, slice]]:
    """Positions whose targets are of one category, in `order`, and its leaves."""
    found, counts = torch.unique(categories, return_counts=True)
    parts = torch.split(order, counts.tolist())
    for node, positions in zip(found.tolist(), parts, strict=True):
        first, end = int(network.leaf_start[node]), int(network.leaf_end[node])
        for rows in torch.split(positions, max(1, LOGITS_AT_ONCE // (end - first))):
            yield rows, slice(first, end)


class Masked(NamedTuple):
    """The codes that the denoiser is asked for at every position, and what is known of them."""

    masked: Tensor
    """Which they are [P, F]."""
    ratio: Tensor
    """Their share r [P]."""
    said: Tensor
    """`head_opinion` [P, F, K]."""
    evidence: Tensor
    """`code_evidence` [P, F, K]."""


def denoiser_loss(network: DiffusionNetwork, known: Known, asked: Masked, share: float) -> Tensor:
    """Mean loss of the masked codes.

    Args:
        network: holds the denoiser.
        known: histories, the targets' codes, and the codes' table.
        asked: what is masked.
        share: of the loss that is to the head's opinion; the rest is to the target's codes.
    """
    h, codes, table = known
    masked, ratio, said, evidence = asked
    ordered, levels = network.ordered_levels, codes.shape[1]
    own = codes[:, ordered:]
    partly = torch.cat([codes[:, :ordered], own.masked_fill(masked, -1)], dim=1)
    hidden = network.denoiser.hidden(h, partly, table)
    queries = network.denoiser.queries(h, hidden, ordered, levels)
    weights = network.denoiser.evidence_weights[ordered:levels].unsqueeze(1)
    logits = code_logits(queries, table, ordered) + weights * evidence
    log_probs = logits.masked_fill(said == 0, ABSENT).log_softmax(dim=2)
    taught = said / said.sum(dim=2, keepdim=True)
    right = log_probs.gather(2, own.unsqueeze(2))[:, :, 0]
    both = (1 - share) * right + share * (taught * log_probs.clamp(min=-60)).sum(dim=2)
    weighted = both.masked_fill(~masked, 0.0).sum(dim=1) / ratio
    return -weighted.mean()
