"""What the network is trained to say, and how to compute it without paying for memory twice.

Item head   (1 - s) * -log p(i | h)  +  s * mean over all items j of -log p(j | h)
Generator   (1 - a) * -log p(path of i | h)  +  a * cross-entropy to the item head, node by node

The item head is a softmax over the whole catalogue and overfits later than the generator, so it is
its teacher: the probabilities of the items below each child, summed, are what the generator should
say (design.md, Model). Both losses are memory bound: logits of all positions at once are hundreds
of megabytes, fetched from the system anew in every step. Here they are made and used up a few
hundred rows at a time, gradient included, which is much faster on a CPU.

Shapes: P training positions, N items, S items that are scored, M trie nodes, D width; at one depth
R positions that have a choice, C children of the widest node, F children of all R together.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from model.training.evidence import BatchEvidence
from model.training.network import ABSENT, Network, TreeTensors

SAMPLED_SOFTMAX_ITEMS = 65_536
"""Of larger catalogues a sample of this many items stands for all."""

LOGITS_AT_ONCE = 1 << 22
"""Logits held at a time, 16 MiB: about what a core's share of the cache holds."""

PRODUCTS_AT_ONCE = 1 << 15

Span = tuple[Tensor, Tensor, Tensor]
"""Per range of scored items: the position (ascending), its first column and its end, each [F]."""


@dataclass(frozen=True)
class Positions:
    """P places of histories at which the next item is learned."""

    h: Tensor
    """Encoded histories [P, D]."""
    targets: Tensor
    """The items that came next, leaves [P]."""
    evidence: BatchEvidence
    """Of transitions at each."""


@dataclass(frozen=True)
class Choices:
    """The choices at one depth on the way to the targets; only children are none."""

    position: Tensor
    """Which of the P positions chooses [R]."""
    parent: Tensor
    """The node where it stands [R]."""
    place: Tensor
    """Which child is the right one [R]."""
    nodes: Tensor
    """The children [R, C]; places that are not taken repeat the first one."""
    taken: Tensor
    """Which of them exist [R, C]."""


def path_choices(network: Network, targets: Tensor, tree: TreeTensors) -> list[Choices]:
    """What has to be chosen at each depth to arrive at `targets` [P]."""
    paths = network.path_nodes(targets)
    made = []
    for depth, branching in enumerate(network.branching):
        parents = paths[:, depth]
        counts = tree.child_start[parents + 1] - tree.child_start[parents]
        position = (counts > 1).nonzero()[:, 0]
        parent = parents[position]
        nodes, taken = tree.children(parent, torch.arange(branching, device=targets.device))
        place = paths[position, depth + 1] - tree.child_start[parent]
        made.append(Choices(position, parent, place, nodes, taken))
    return made


@dataclass(frozen=True)
class HeadEvidence:
    """What is added to single logits of the item head, times its weight."""

    position: Tensor
    """Ascending [E]."""
    column: Tensor
    """Among the scored items [E]."""
    logs: Tensor
    """[E]"""

    @classmethod
    def of(cls, evidence: BatchEvidence, first_item: int, scored: "ScoredItems") -> "HeadEvidence":
        """Of those items that are scored."""
        position, leaf, logs = evidence.items(first_item)
        column = torch.searchsorted(scored.leaves, leaf).clamp(max=len(scored.leaves) - 1)
        known = scored.leaves[column] == leaf
        return cls(position[known], column[known], logs[known])

    def rows(self, start: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Those of `count` positions from `start` on, counted from there."""
        bounds = torch.tensor([start, start + count], device=self.position.device)
        lo, hi = torch.searchsorted(self.position, bounds).tolist()
        return self.position[lo:hi] - start, self.column[lo:hi], self.logs[lo:hi]


class _ItemSoftmax(torch.autograd.Function):
    """Summed -log softmax(h . v + beta e) of the targets; gradients are made on the way forward."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - the function and what only it needs
        ctx: Any,
        h: Tensor,
        items: Tensor,
        correction: Tensor,
        targets: Tensor,
        spans: list[Span],
        masses: list[Tensor],
        smoothing: float,
        weight: Tensor,
        evidence: HeadEvidence,
    ) -> Tensor:
        rows = max(1, LOGITS_AT_ONCE // len(items))
        total, dh, ditems = h.new_zeros(()), torch.empty_like(h), torch.zeros_like(items)
        # Label smoothing's share of the gradient and of the loss is linear in the logits.
        spread = smoothing / len(items) * evidence.logs.sum()
        dweight = -spread
        total -= weight * spread
        learns = any(ctx.needs_input_grad)
        # The mean logit is linear in both: no pass over the logits is needed for it.
        mean_item, mean_correction = items.mean(0), correction.mean()
        for start in range(0, len(h), rows):
            part, own = h[start : start + rows], targets[start : start + rows, None]
            p = torch.addmm(correction, part, items.T)
            row, column, logs = evidence.rows(start, len(part))
            p[row, column] += weight * logs
            wanted = p.gather(1, own)
            highest = p.amax(1, keepdim=True)
            sums = p.sub_(highest).exp_().sum(1, keepdim=True)
            mean = (part @ mean_item + mean_correction).unsqueeze(1)
            total += (sums.log() + highest).sum()
            total -= ((1 - smoothing) * wanted + smoothing * mean).sum()
            p /= sums
            if spans:
                _sum_spans(p, start, spans, masses)
            if not learns:  # no gradient will be asked for
                continue
            # d loss / d logits = p - (1 - s) onehot(own) - s / S, the last term after the loop.
            p.scatter_add_(1, own, torch.full_like(wanted, smoothing - 1.0))
            dweight = dweight + (p[row, column] * logs).sum()
            torch.mm(p, items, out=dh[start : start + rows])
            ditems.addmm_(p.T, part)
        if smoothing and learns:
            dh -= smoothing * mean_item
            ditems -= smoothing / len(items) * h.sum(0)
        ctx.save_for_backward(dh, ditems, dweight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dh, ditems, dweight = (each * grad for each in ctx.saved_tensors)
        return dh, ditems, None, None, None, None, None, dweight, None


def _sum_spans(p: Tensor, start: int, spans: list[Span], masses: list[Tensor]) -> None:
    """Write to `masses`, each [F], what rows `start` and on of the softmax give to column ranges.

    Args:
        p: probabilities [rows, S].
        start: the position of its first row.
        spans: one per choice.
        masses: their entries of these rows are filled.
    """
    bounds = torch.tensor([start, start + len(p)], device=p.device)
    # One pass over the softmax for all choices: it is by far the largest array of a training.
    sums = functional.pad(torch.cumsum(p, dim=1), (1, 0))
    for (position, first, end), mass in zip(spans, masses, strict=True):
        lo, hi = torch.searchsorted(position, bounds).tolist()
        row = position[lo:hi] - start
        mass[lo:hi] = sums[row, end[lo:hi]] - sums[row, first[lo:hi]]


@dataclass(frozen=True)
class ScoredItems:
    """The items that the item head's softmax runs over, ascending."""

    leaves: Tensor
    """[S]"""
    correction: Tensor
    """Added to each logit [S]: a sampled item stands for several."""

    @classmethod
    def draw(cls, items: int, targets: Tensor) -> "ScoredItems":
        """All items, or the targets and a uniform sample of the others."""
        device = targets.device
        if items <= SAMPLED_SOFTMAX_ITEMS:
            return cls(torch.arange(items, device=device), torch.zeros(items, device=device))
        wanted = torch.unique(targets)
        drawn = torch.unique(torch.randint(items, (SAMPLED_SOFTMAX_ITEMS,), device=device))
        others = drawn[~torch.isin(drawn, wanted)]
        leaves, order = torch.cat([wanted, others]).sort()
        stands_for = (items - len(wanted)) / max(len(others), 1)
        correction = torch.full((len(leaves),), math.log(stands_for), device=device)
        correction[order < len(wanted)] = 0.0
        return cls(leaves, correction)


def item_head_loss(
    network: Network,
    positions: Positions,
    items: Tensor,
    choices: list[Choices],
    smoothing: float = 0.0,
) -> tuple[Tensor, list[Tensor]]:
    """Mean cross-entropy of the targets among all items, and what the head says at each choice.

    Args:
        network: knows which items are below a node.
        positions: where the next item is learned.
        items: item vectors [N, D].
        choices: where the head's opinion is wanted; may be empty.
        smoothing: s, what of each target is spread over all items.

    Returns:
        The loss, and per choice the head's probability of each child [R, C], zero where it sees
        none of the items below a node.
    """
    h, targets = positions.h, positions.targets
    scored = ScoredItems.draw(len(items), targets)
    spans, masses = [], []
    for choice in choices:
        existing = choice.nodes[choice.taken]
        # Items lie in depth-first order: those below a node are one range of the scored ones.
        first = torch.searchsorted(scored.leaves, network.leaf_start[existing])
        end = torch.searchsorted(scored.leaves, network.leaf_end[existing])
        row = choice.taken.nonzero()[:, 0]
        spans.append((choice.position[row], first, end))
        masses.append(h.new_zeros(len(existing)))
    columns = torch.searchsorted(scored.leaves, targets)
    vectors = items if len(scored.leaves) == len(items) else items.index_select(0, scored.leaves)
    with torch.autocast(h.device.type, enabled=False):  # sums over a catalogue want all their bits
        total: Tensor = _ItemSoftmax.apply(  # type: ignore[no-untyped-call]
            h.float(),
            vectors.float(),
            scored.correction,
            columns,
            spans,
            masses,
            smoothing,
            network.head_evidence_weight.float(),
            HeadEvidence.of(positions.evidence, network.depth_start[-2], scored),
        )
    said = []
    for choice, mass in zip(choices, masses, strict=True):
        shares = h.new_zeros(choice.taken.shape).masked_scatter_(choice.taken, mass.clamp_(min=0))
        whole = shares.sum(1, keepdim=True)
        # Below the rounding of the sums there is nothing to be learned from their ratios.
        said.append(torch.where(whole > 1e-5, shares / whole.clamp(min=1e-5), 0.0))
    return total / len(h), said


class _Products(torch.autograd.Function):
    """q[row] . v[node] for F pairs, without keeping the gathered vectors [F, D]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, vectors: Tensor, row: Tensor, node: Tensor) -> Tensor:
        ctx.save_for_backward(query, vectors, row, node)
        out = query.new_empty(len(row))
        for part in _parts(len(row)):
            left, right = query.index_select(0, row[part]), vectors.index_select(0, node[part])
            torch.sum(left * right, dim=1, out=out[part])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, vectors, row, node = ctx.saved_tensors
        dquery, dvectors = torch.zeros_like(query), torch.zeros_like(vectors)
        for part in _parts(len(row)):
            r, n, weight = row[part], node[part], grad[part].unsqueeze(1)
            dquery.index_add_(0, r, vectors.index_select(0, n) * weight)
            dvectors.index_add_(0, n, query.index_select(0, r) * weight)
        return dquery, dvectors, None, None


def _parts(length: int) -> list[slice]:
    return [slice(at, at + PRODUCTS_AT_ONCE) for at in range(0, length, PRODUCTS_AT_ONCE)]


def choice_log_probs(
    query: Tensor, choice: Choices, tree: TreeTensors, evidence: Tensor | None = None
) -> Tensor:
    """Log-probabilities [R, C] as `child_log_probs`, computed only where a child exists.

    `evidence` is added to the logits of the children that exist, in their order.
    """
    node, row = choice.nodes[choice.taken], choice.taken.nonzero()[:, 0]
    if len(choice.parent) and not choice.parent.any():  # all at the root: one product of matrices
        nodes = choice.nodes[0]
        existing = (query @ tree.vectors[nodes].T)[choice.taken]
    else:
        existing = _Products.apply(query, tree.vectors, row, node)  # type: ignore[no-untyped-call]
    existing = existing + tree.biases[node]
    if evidence is not None:
        existing = existing + evidence
    logits = query.new_full(choice.taken.shape, ABSENT).masked_scatter(choice.taken, existing)
    return torch.log_softmax(logits, dim=-1)


def generator_loss(
    network: Network,
    positions: Positions,
    tree: TreeTensors,
    choices: list[Choices],
    taught: list[Tensor] | None = None,
    share: float = 0.0,
) -> Tensor:
    """Mean loss of the generator on the way to the targets of `choices`.

    Args:
        network: holds the generator.
        positions: where the next item is learned.
        tree: node vectors and biases.
        choices: one for each depth.
        taught: per depth the item head's probability of each child [R, C].
        share: of the loss that is cross-entropy to `taught`, a; the rest is to the target's path.
    """
    h = positions.h
    total = h.new_zeros(())
    for depth, choice in enumerate(choices):
        parents = tree.vectors.index_select(0, choice.parent)
        query = network.generator.query(depth, h.index_select(0, choice.position), parents)
        row = choice.taken.nonzero()[:, 0]
        logs = positions.evidence.of(depth, choice.position[row], choice.nodes[choice.taken])
        known = network.generator.evidence_weights[depth] * logs
        log_probs = choice_log_probs(query, choice, tree, known)
        own = log_probs.gather(1, choice.place.unsqueeze(1)).sum()
        total = total - (1 - share) * own
        if taught is not None and share:
            # 0 * log 0 = 0: a place that is not taken, or a child that has become impossible.
            total = total - share * (taught[depth] * log_probs.clamp(min=-60)).sum()
    return total / len(h)
