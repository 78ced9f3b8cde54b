"""Diffusion Beam Search as tensor operations, exported to ONNX.

`model/diffusion_search.py` says the same in NumPy and is the one to read first. Here a partly
unmasked ID is a *witness*, the first legal item that has its codes, and which positions are
unmasked: two beams are the same ID exactly if both are equal. The ordered levels walk down the
trie; after them the items of a beam's category are a range of leaves, looked through in every step.
`diffusion_batches.py` searches for many histories at once.
Shapes: W beams, R items of the largest category, C children, L levels, K codes, N items, E items
with evidence, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.evidence import SCALE
from model.training.diffusion_network import CodeTensors, Denoiser, DiffusionNetwork, code_logits
from model.training.network import TreeTensors, child_log_probs

NEVER = float("-inf")


class Evidence(NamedTuple):
    """What transitions say after the history."""

    leaves: Tensor
    """Of which items [E]."""
    amounts: Tensor
    """e of each [E]."""
    weights: Tensor
    """beta of each position [L]."""


class CodedItems(NamedTuple):
    """The items and what is known of their codes."""

    codes: Tensor
    """[N, L]"""
    first_of_bucket: Tensor
    """The first leaf with the same codes as each leaf [N]."""
    table: CodeTensors
    evidence: Evidence


class Sizes(NamedTuple):
    """What differs between searches; numbers come as lengths, which keeps the graph general."""

    beams: Tensor
    """[W]"""
    pool: Tensor
    """[W * L] candidates that are looked at in a step"""
    apart: Tensor
    """[1] is 1 where beams are kept apart, else 0"""
    slots: tuple[Tensor, ...]
    """[C] of each ordered depth, of the largest category [R] and of the buckets [C]."""


class Beams(NamedTuple):
    """Partly unmasked IDs, best first."""

    first: Tensor
    """First leaf of the category [W]."""
    end: Tensor
    """Leaf after its last one [W]."""
    witness: Tensor
    """First legal leaf with the codes [W]; a beam left over has any."""
    unmasked: Tensor
    """[W, L]"""
    totals: Tensor
    """Scores [W]; -inf of beams left over."""

    def codes(self, items: CodedItems) -> Tensor:
        """The codes [W, L], -1 where masked."""
        return items.codes[self.witness].masked_fill(~self.unmasked, -1)


class DiffusionDecoderGraph(nn.Module):
    """decoder.onnx: the whole search of one request."""

    def __init__(self, network: DiffusionNetwork) -> None:
        super().__init__()
        self.denoiser: Denoiser = network.denoiser
        self.ordered_levels = network.ordered_levels
        self.levels = len(network.shape.codebook_sizes)

    def forward(  # noqa: PLR0913, PLR0917 - the graph's inputs, in their exported order
        self,
        h: Tensor,
        child_start: Tensor,
        vectors: Tensor,
        biases: Tensor,
        alive: Tensor,
        codes: Tensor,
        first_of_bucket: Tensor,
        code_vectors: Tensor,
        code_biases: Tensor,
        evidence_leaves: Tensor,
        evidence: Tensor,
        evidence_weights: Tensor,
        openings: Tensor,
        beams: Tensor,
        pool: Tensor,
        apart: Tensor,
        *slots: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return leaves [W] and log-probabilities [W], -inf for places left over, for h [D].

        `openings` [L, L] says which positions may be unmasked at each step.
        """
        tree = TreeTensors(child_start, vectors, biases)
        table = self.denoiser.table(code_vectors, code_biases)
        known = Evidence(evidence_leaves, evidence, evidence_weights)
        items = CodedItems(codes, first_of_bucket, table, known)
        sizes = Sizes(beams, pool, apart, slots)
        legal = alive[len(alive) - len(codes) :] > 0
        found = self._unmask_in_order(h, tree, items, alive, sizes)
        for step in range(self.ordered_levels, self.levels):
            found = self._unmask_any(h, items, legal, found, (openings[step], sizes))
        return self._choose_items(h, tree, items, legal, (found, sizes))

    def _queries(self, h: Tensor, beams: Beams, items: CodedItems, first: int, end: int) -> Tensor:
        """Of the positions from `first` until `end` [W, end - first, D]."""
        own = h.unsqueeze(0)
        hidden = self.denoiser.hidden(own, beams.codes(items), items.table)
        return self.denoiser.queries(own, hidden, first, end)

    @staticmethod
    def _evidence_terms(beams: Beams, items: CodedItems, first: int, end: int) -> Tensor:
        """What evidence adds to the codes of the levels first .. end - 1 [W, end - first, K].

        Summed over the few items that have some, not over the categories.
        """
        evidence, levels, largest = items.evidence, end - first, items.table.biases.shape[1]
        codes = items.codes[evidence.leaves]
        agree = (codes == beams.codes(items).unsqueeze(1)) | ~beams.unmasked.unsqueeze(1)
        amounts = torch.where(agree.all(dim=2), evidence.amounts, 0.0)
        place = codes[:, first:end] + largest * torch.arange(levels, device=codes.device)
        amounts = _each(amounts, levels)
        sums = amounts.new_zeros(len(amounts), levels * largest)
        sums = sums.scatter_add(1, place.flatten().expand_as(amounts), amounts)
        weights = evidence.weights[first:end].unsqueeze(1)
        return weights * torch.log1p(sums.view(-1, levels, largest) / SCALE)

    def _unmask_in_order(
        self, h: Tensor, tree: TreeTensors, items: CodedItems, alive: Tensor, sizes: Sizes
    ) -> Beams:
        """The ordered levels, down the trie."""
        first_item = len(alive) - len(items.codes)
        nodes = torch.zeros(1, dtype=torch.long, device=h.device)
        start = nodes.new_zeros(1)
        unmasked = torch.zeros(1, self.levels, dtype=torch.bool, device=h.device)
        beams = Beams(start, start, start, unmasked, h.new_zeros(1))
        for depth in range(self.ordered_levels):
            children, taken = tree.children(nodes, sizes.slots[depth])
            leaves = children
            for _ in range(depth + 1, self.levels + 1):
                leaves = tree.child_start[leaves].long()
            code = items.codes[leaves - first_item, depth]
            query = self._queries(h, beams, items, depth, depth + 1)[:, 0]
            table = items.table
            products = (table.vectors[depth][code] @ query.unsqueeze(-1)).squeeze(-1)
            known = self._evidence_terms(beams, items, depth, depth + 1)[:, 0].gather(1, code)
            logits = (products + table.biases[depth][code] + known).masked_fill(~taken, -1e9)
            legal = taken & (alive[children] > 0)
            scores = beams.totals.unsqueeze(1) + logits.log_softmax(dim=1)
            totals, index = _best(scores.masked_fill(~legal, NEVER).flatten(), sizes.beams)
            nodes = children.flatten()[index]
            witness = leaves.flatten()[index] - first_item
            unmasked = torch.arange(self.levels, device=h.device) <= depth
            unmasked = unmasked.unsqueeze(0).expand(len(nodes), -1)
            beams = Beams(witness, witness, witness, unmasked, totals)
        end = nodes + 1
        for _ in range(self.ordered_levels, self.levels + 1):
            end = tree.child_start[end].long()
        return beams._replace(end=end - first_item)

    def _unmask_any(
        self,
        h: Tensor,
        items: CodedItems,
        legal: Tensor,
        beams: Beams,
        way: tuple[Tensor, Sizes],
    ) -> Beams:
        """One more code of each beam, whichever is surest of those that may be unmasked now."""
        opened, sizes = way
        ordered, largest = self.ordered_levels, items.table.biases.shape[1]
        free, count = self.levels - ordered, len(items.codes)
        unmasked = beams.unmasked[:, ordered:]
        # 1. The items of the category that have the unmasked codes, and what codes occur there.
        leaves = beams.first.unsqueeze(1) + sizes.slots[-2]
        inside = leaves < beams.end.unsqueeze(1)
        leaves = leaves.clamp(max=count - 1)
        codes = _rows(items.codes, leaves)[:, :, ordered:].unbind(dim=2)
        own = beams.codes(items)[:, ordered:].unsqueeze(2).unbind(dim=1)
        agree = inside
        for code, wanted, known in zip(
            codes, own, unmasked.unsqueeze(2).unbind(dim=1), strict=True
        ):
            agree = agree & ((code == wanted) | ~known)
        # The first legal leaf with a code, else count + the first one, else 2 * count: in one pass.
        lawful = torch.where(_rows(legal, leaves), leaves, leaves + count)
        lawful = torch.where(agree, lawful, 2 * count)
        nobody = leaves.new_full((len(leaves), largest), 2 * count)
        first = [nobody.scatter_reduce(1, code, lawful, "amin") for code in codes]
        witness = torch.stack(first, dim=1)
        # 2. Their log-probabilities; forbid what is not legal or not to be unmasked now.
        queries = self._queries(h, beams, items, ordered, self.levels)
        logits = code_logits(queries, items.table, ordered)
        logits = logits + self._evidence_terms(beams, items, ordered, self.levels)
        logits = logits.masked_fill(witness >= 2 * count, -1e9)
        scores = beams.totals.view(-1, 1, 1) + logits.log_softmax(dim=2)
        possible = (~unmasked & opened[ordered:]).unsqueeze(2)
        possible = possible & (witness < count)
        totals, index = _best(scores.masked_fill(~possible, NEVER).flatten(), sizes.pool)
        # 3. The candidates, each partly unmasked ID once.
        source = _quotient(index, free * largest)
        level = _quotient(index % (free * largest), largest)
        at = (ordered + level).unsqueeze(1) == torch.arange(self.levels, device=h.device)
        grown = Beams(
            beams.first[source],
            beams.end[source],
            witness.flatten()[index].clamp(max=count - 1),
            beams.unmasked[source] | at,
            totals,
        )
        totals = totals.masked_fill(_repeats(grown), NEVER)
        # 4. Keep beams apart, and the best W of them.
        grown = _at(grown._replace(totals=totals), totals.topk(len(totals)).indices)
        penalty = self._penalty(grown.codes(items), sizes.beams)
        totals = grown.totals + sizes.apart * penalty
        return _at(grown._replace(totals=totals), totals.topk(len(sizes.beams)).indices)

    def _penalty(self, states: Tensor, leaders: Tensor) -> Tensor:
        """`model.diffusion_search.diversity_penalty` of candidates [C, L], best first: [C]."""
        states = states[:, self.ordered_levels :]
        unmasked = states >= 0
        same = (states.unsqueeze(1) == states[leaders]) & unmasked.unsqueeze(1)
        better = torch.arange(len(states), device=states.device).unsqueeze(1) > leaders
        shared = functional.pad(same.sum(dim=2) * better, (1, 0)).amax(dim=1)
        overlap = shared / unmasked.sum(dim=1).clamp(min=1)
        return torch.log1p(-torch.log1p(overlap))

    def _choose_items(
        self,
        h: Tensor,
        tree: TreeTensors,
        items: CodedItems,
        legal: Tensor,
        rest: tuple[Beams, Sizes],
    ) -> tuple[Tensor, Tensor]:
        """The last choice: among the items that have all codes of a beam."""
        beams, sizes = rest
        count = len(items.codes)
        first = items.first_of_bucket[beams.witness]
        leaves = first.unsqueeze(1) + sizes.slots[-1]
        inside = leaves < count
        leaves = leaves.clamp(max=count - 1)
        taken = inside & (items.first_of_bucket[leaves] == first.unsqueeze(1))
        query = self._queries(h, beams, items, self.levels, self.levels + 1)[:, 0]
        nodes = leaves + (len(tree.biases) - count)
        log_probs = child_log_probs(query, nodes, taken, tree)
        scores = beams.totals.unsqueeze(1) + log_probs
        scores = scores.masked_fill(~(taken & legal[leaves]), NEVER)
        totals, index = _best(scores.flatten(), sizes.beams)
        return leaves.flatten()[index], totals


class DiffusionStepGraph(nn.Module):
    """step.onnx: the logits of partly unmasked IDs, for the search that is checked against."""

    def __init__(self, network: DiffusionNetwork) -> None:
        super().__init__()
        self.denoiser = network.denoiser

    def forward(  # noqa: PLR0913, PLR0917 - the graph's inputs, in their exported order
        self,
        h: Tensor,
        partly: Tensor,
        bucket_nodes: Tensor,
        vectors: Tensor,
        biases: Tensor,
        code_vectors: Tensor,
        code_biases: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return logits [W, L, K] of codes and [W, C] of the `bucket_nodes` [W, C].

        `partly` [W, L] holds codes, -1 where masked.
        """
        table = self.denoiser.table(code_vectors, code_biases)
        queries = self.denoiser(h.unsqueeze(0), partly, table)
        of_codes = code_logits(queries, table)
        of_items = (vectors[bucket_nodes] @ queries[:, -1].unsqueeze(-1)).squeeze(-1) + biases[
            bucket_nodes
        ]
        return of_codes, of_items


def _best(scores: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The best len(`wanted`) of `scores` [S] and where they are; places left over are -inf."""
    padded = torch.cat([scores, scores.new_full((wanted.shape[0],), NEVER)])
    best, index = torch.topk(padded, wanted.shape[0])
    return best, index.clamp(max=scores.shape[0] - 1)


def _rows(table: Tensor, leaves: Tensor) -> Tensor:
    """`table[leaves]`, which is exported as an operator several times as slow."""
    return table.index_select(0, leaves.flatten()).view(*leaves.shape, *table.shape[1:])


def _each(values: Tensor, levels: int) -> Tensor:
    """[W, R] -> [W, R * L], every value once per level."""
    return values.unsqueeze(2).expand(-1, -1, levels).flatten(1)


def _repeats(beams: Beams) -> Tensor:
    """Which beams [C], best first, are the same partly unmasked ID as a better one."""
    count, levels = beams.unmasked.shape
    bits = 2 ** torch.arange(levels, device=beams.witness.device)
    key = beams.witness * 2**levels + (beams.unmasked * bits).sum(dim=1)
    # Sorted together with the rank, a repeated ID comes right after its better one.
    place = torch.arange(count, device=key.device)
    ranked = key * count + place
    # Places left over may have the key of a beam that is real, never a better rank.
    ranked = torch.topk(ranked, count, largest=False).values
    # A remainder is exact, which a quotient is not once exported; it needs its divisor as a tensor.
    rank = ranked % (place[-1] + 1)
    repeated = functional.pad((ranked - rank)[1:] == (ranked - rank)[:-1], (1, 0))
    return torch.zeros_like(repeated).scatter(0, rank, repeated)


def _quotient(index: Tensor, size: int) -> Tensor:
    """`index` // `size`; the exporter divides as float32, which beyond 2^24 rounds."""
    return torch.div(index - index % size + size // 2, size, rounding_mode="floor")


def _at(beams: Beams, index: Tensor) -> Beams:
    return Beams(*(each[index] for each in beams))
