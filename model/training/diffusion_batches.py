"""Diffusion Beam Search for many histories at once, as validation needs it.

`model/diffusion_search.py` says the same in NumPy and is the one to read first. Here every beam
carries the list of the items that have its unmasked codes, which gets shorter with every step: all
lists together are a few items per beam where the exported graph, whose tensors have one length for
all beams, looks through the largest category for each. Every item is legal and beams are not kept
apart.

Shapes: B histories, W beams, A = B * W beams of all histories, Q items of all their lists, N items,
L levels, K codes of the largest level, F levels that are unmasked in any order, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.evidence import SCALE
from model.training.diffusion_network import CodeTensors, DiffusionNetwork, code_logits
from model.training.evidence import BatchEvidence
from model.training.network import ABSENT, TreeTensors

NEVER = float("-inf")


@dataclass(frozen=True)
class Lists:
    """The items of every beam, beam after beam."""

    beam: Tensor
    """Which of the A beams has the item, ascending [Q]."""
    leaf: Tensor
    """Ascending within a beam [Q]."""

    @classmethod
    def of_ranges(cls, first: Tensor, count: Tensor) -> "Lists":
        """The leaves first .. first + count - 1 of each of A beams."""
        beam, place = _spread(count)
        return cls(beam, first[beam] + place)

    def grow(self, source: Tensor, beams: int) -> "Lists":
        """The lists of new beams, each that of the beam `source` [A'] of the `beams` before."""
        count = torch.bincount(self.beam, minlength=beams)
        start = count.cumsum(0) - count
        beam, place = _spread(count[source])
        return Lists(beam, self.leaf[start[source][beam] + place])

    def places(self, beams: int) -> Tensor:
        """Which of its beam's items each one is, from 0 [Q]."""
        count = torch.bincount(self.beam, minlength=beams)
        return (
            torch.arange(len(self.beam), device=self.beam.device)
            - (count.cumsum(0) - count)[self.beam]
        )


def _spread(count: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers 0 .. count - 1 for each of `count` [A]: whose they are [Q], and they [Q]."""
    owner = torch.repeat_interleave(count)
    start = count.cumsum(0) - count
    return owner, torch.arange(len(owner), device=count.device) - start[owner]


@dataclass(frozen=True)
class Histories:
    """What a search starts from."""

    h: Tensor
    """Encoded [B, D]."""
    evidence: BatchEvidence
    """Of transitions, after each."""
    amounts: Tensor
    """That of the items as a table [B, N]."""
    table: CodeTensors
    """What is known of the codes."""

    def code_evidence(self, lists: Lists, beams: int, places: Tensor) -> Tensor:
        """log(1 + e / scale) of the items of `beams` beams that have each code.

        Args:
            lists: the items of the beams.
            beams: A.
            places: of each item's codes among all codes of all beams [Q, F].

        Returns:
            As many numbers as there are places, A * F * K.
        """
        own = self.amounts[lists.beam // (beams // len(self.h)), lists.leaf]
        some = own.nonzero()[:, 0]
        sums = own.new_zeros(beams * places.shape[1] * self.table.biases.shape[1])
        known = own[some].unsqueeze(1).expand(-1, places.shape[1])
        sums.index_add_(0, places[some].flatten(), known.flatten())
        return sums.div_(SCALE).log1p_()


@dataclass(frozen=True)
class BatchSearch:
    """The search of one network as it is."""

    network: DiffusionNetwork
    tree: TreeTensors
    width: int
    """W"""

    def search(self, h: Tensor, evidence: BatchEvidence) -> tuple[Tensor, Tensor]:
        """Leaves and log-probabilities [B, W] for h [B, D] and the `evidence` of these histories.

        Best first; -inf for places left.
        """
        network = self.network
        items = self.tree.vectors[len(self.tree.vectors) - len(network.codes) :]
        amounts = evidence.item_amounts(len(h), network.depth_start[-2])
        read = Histories(h, evidence, amounts, network.code_table(items))
        nodes, codes, totals = self._unmask_in_order(read)
        first, end = network.leaf_start[nodes].flatten(), network.leaf_end[nodes].flatten()
        lists = Lists.of_ranges(first, torch.where(totals.flatten() > NEVER, end - first, 0))
        for step in range(network.codes.shape[1] - network.ordered_levels):
            codes, totals, lists = self._unmask_any(read, (codes, totals, lists), step + 1)
        return self._choose_items(read, (codes, totals, lists))

    def _unmask_in_order(self, read: Histories) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes [B, W], their codes [B, W, L] and scores [B, W] after the ordered levels."""
        network, h, table = self.network, read.h, read.table
        history = torch.arange(len(h), device=h.device)[:, None, None]
        nodes = torch.zeros(len(h), 1, dtype=torch.long, device=h.device)
        codes = network.codes.new_full((len(h), 1, network.codes.shape[1]), -1)
        totals = h.new_zeros(len(h), 1)
        for depth in range(network.ordered_levels):
            slots = torch.arange(network.branching[depth], device=h.device)
            children, taken = self.tree.children(nodes, slots)
            hidden = network.denoiser.hidden(h.unsqueeze(1), codes, table)
            query = network.denoiser.queries(h.unsqueeze(1), hidden, depth, depth + 1)[:, :, 0]
            own = network.codes[network.leaf_start[children], depth]
            logits = (query @ table.vectors[depth].T + table.biases[depth]).gather(
                2, own.flatten(2)
            )
            known = read.evidence.of(depth, history, children)
            logits = logits + network.denoiser.evidence_weights[depth] * known
            scores = logits.masked_fill(~taken, ABSENT).log_softmax(dim=2) + totals.unsqueeze(2)
            totals, index = self._best(scores.masked_fill(~taken, NEVER), 1)
            nodes = children.flatten(1).gather(1, index)
            source = torch.div(index, len(slots), rounding_mode="floor")
            codes = _rows(codes, source).clone()
            codes[:, :, depth] = own.flatten(1).gather(1, index)
        return nodes, codes, totals

    def _unmask_any(
        self, read: Histories, beams: tuple[Tensor, Tensor, Lists], orders: int
    ) -> tuple[Tensor, Tensor, Lists]:
        """One more code of each beam; a partly unmasked ID is reached in at most `orders` ways."""
        codes, totals, lists = beams
        h, table = read.h, read.table
        ordered, largest = self.network.ordered_levels, table.biases.shape[1]
        batch, width, levels = codes.shape
        free = levels - ordered
        # 1. The first item of each beam that has each code; none where there is no such item.
        count = len(self.network.codes)
        own = self.network.codes[lists.leaf, ordered:]
        places = torch.arange(free, device=h.device) * largest + own
        places = lists.beam.unsqueeze(1) * (free * largest) + places
        witness = own.new_full((batch * width * free * largest,), count)
        witness.scatter_reduce_(
            0, places.flatten(), lists.leaf.unsqueeze(1).expand(-1, free).flatten(), "amin"
        )
        witness = witness.view(batch, width, free, largest)
        # 2. Log-probabilities over the codes that occur.
        hidden = self.network.denoiser.hidden(h.unsqueeze(1), codes, table)
        queries = self.network.denoiser.queries(h.unsqueeze(1), hidden, ordered, levels)
        logits = code_logits(queries.flatten(0, 1), table, ordered).view_as(witness)
        known = read.code_evidence(lists, batch * width, places).view_as(witness)
        logits = logits + self.network.denoiser.evidence_weights[ordered:levels, None] * known
        logits = logits.masked_fill(witness == count, ABSENT)
        scores = totals.view(batch, width, 1, 1) + logits.log_softmax(dim=3)
        possible = (witness < count) & (codes[:, :, ordered:] < 0).unsqueeze(3)
        # 3. Each partly unmasked ID once, and the best W of them.
        totals, index = self._best(scores.masked_fill(~possible, NEVER), orders)
        source = torch.div(index, free * largest, rounding_mode="floor")
        level = torch.div(index % (free * largest), largest, rounding_mode="floor") + ordered
        code = index % largest
        grown = _rows(codes, source).scatter(2, level.unsqueeze(2), code.unsqueeze(2))
        bits = 2 ** torch.arange(levels, device=h.device)
        key = witness.flatten(1).gather(1, index) * 2**levels + ((grown >= 0) * bits).sum(2)
        totals, kept = totals.masked_fill(_repeats(key), NEVER).topk(
            min(self.width, totals.shape[1]), dim=1
        )
        source, level, code = (each.gather(1, kept) for each in (source, level, code))
        # 4. Of the items of the beams that they come from, those that have the code.
        rows = torch.arange(batch, device=h.device).unsqueeze(1) * width + source
        lists = lists.grow(rows.flatten(), batch * width)
        has = self.network.codes[lists.leaf, level.flatten()[lists.beam]]
        has = (has == code.flatten()[lists.beam]) & (totals.flatten()[lists.beam] > NEVER)
        return _rows(grown, kept), totals, Lists(lists.beam[has], lists.leaf[has])

    def _choose_items(
        self, read: Histories, beams: tuple[Tensor, Tensor, Lists]
    ) -> tuple[Tensor, Tensor]:
        """The last choice: among the items that have all codes of a beam."""
        codes, totals, lists = beams
        h, table = read.h, read.table
        batch, width, levels = codes.shape
        hidden = self.network.denoiser.hidden(h.unsqueeze(1), codes, table)
        query = self.network.denoiser.queries(h.unsqueeze(1), hidden, levels)[:, :, 0]
        nodes = lists.leaf + self.network.depth_start[-2]
        products = (query.flatten(0, 1)[lists.beam] * self.tree.vectors[nodes]).sum(1)
        shape = (batch * width, self.network.branching[-1])
        at = lists.beam, lists.places(batch * width)
        known = read.evidence.of(levels, lists.beam // width, nodes)
        products = products + self.tree.biases[nodes]
        products = products + self.network.denoiser.evidence_weights[-1] * known
        logits = products.new_full(shape, ABSENT).index_put(at, products)
        leaves = lists.leaf.new_zeros(shape).index_put(at, lists.leaf)
        scores = logits.log_softmax(dim=1).masked_fill(logits == ABSENT, NEVER)
        scores = scores.view(batch, width, -1) + totals.unsqueeze(2)
        spare = scores.new_full((batch, self.width), NEVER)
        best, index = torch.cat([scores.flatten(1), spare], dim=1).topk(self.width, dim=1)
        index = index.clamp(max=scores.shape[1] * scores.shape[2] - 1)
        return leaves.view(batch, -1).gather(1, index), best

    def _best(self, scores: Tensor, times: int) -> tuple[Tensor, Tensor]:
        """The best W * `times` of the `scores` [B, ...] of each history, or all if fewer."""
        flat = scores.flatten(1)
        best, index = flat.topk(min(self.width * times, flat.shape[1]), dim=1)
        return best, index


def _rows(values: Tensor, source: Tensor) -> Tensor:
    """The beams `source` [B, W'] of `values` [B, W, L]."""
    return values.gather(1, source.unsqueeze(2).expand(-1, -1, values.shape[2]))


def _repeats(key: Tensor) -> Tensor:
    """Which of `key` [B, C] one before it in its row equals."""
    ordered, index = key.sort(dim=1, stable=True)
    again = torch.zeros_like(key, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(again).scatter(1, index, again)
