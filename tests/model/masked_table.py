"""A masked-code decoder that is nothing but a table, and its scores by brute force."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import log_softmax

from model.diffusion_search import MASKED, DiffusionSearch, Unmasking
from model.evidence import ItemEvidence
from model.types import BoolArray, FloatArray, IntArray
from tests.model.table_decoder import NOTHING


@dataclass(frozen=True)
class MaskedTable:
    """Logits that depend on every code that is known, and evidence, whatever the history."""

    codes: IntArray
    """[N, L], sorted."""
    own: FloatArray
    """[L, K]"""
    given: FloatArray
    """[L, K, L, K]: what a known code adds to the others."""
    items: FloatArray
    """[N]"""
    evidence: FloatArray
    """[N]"""
    evidence_weights: FloatArray
    """[L]"""

    @classmethod
    def random(cls, codes: IntArray, seed: int) -> "MaskedTable":
        generator = np.random.default_rng(seed)
        sizes = (codes.shape[1], int(codes.max()) + 1)
        draws = [generator.normal(scale=1.5, size=size) for size in (sizes, sizes * 2, len(codes))]
        ordered = codes[np.lexsort(codes.T[::-1])]
        known = generator.random(len(codes)) < generator.random()
        draws += [known * generator.exponential(0.1, len(codes))]
        draws += [generator.normal(size=sizes[:1])]
        return cls(ordered, *(draw.astype(np.float32) for draw in draws))

    def without_evidence(self) -> "MaskedTable":
        return replace(self, evidence=np.zeros_like(self.evidence))

    def code_logits(self, h: FloatArray, codes: IntArray) -> FloatArray:  # noqa: ARG002 - a table
        logits = np.repeat(self.own[None], len(codes), axis=0)
        for row, level in zip(*np.nonzero(codes != MASKED), strict=True):
            logits[row] += self.given[level, codes[row, level]]
        return logits

    def item_logits(
        self,
        h: FloatArray,  # noqa: ARG002 - a table
        codes: IntArray,  # noqa: ARG002
        leaves: IntArray,
    ) -> FloatArray:
        return self.items[leaves]

    def search(self) -> DiffusionSearch:
        evidence = ItemEvidence.of(self.evidence)
        return DiffusionSearch(self, self.codes, evidence, self.evidence_weights)

    def scores(self, leaf: int, ordered: int) -> list[float]:
        """Log-probability of an item by every order of its codes after the `ordered` first."""
        return [self._score(leaf, order) for order in self._orders(ordered)]

    def _orders(self, ordered: int) -> Iterator[tuple[int, ...]]:
        levels = self.codes.shape[1]
        for rest in permutations(range(ordered, levels)):
            yield (*range(ordered), *rest)

    def _score(self, leaf: int, order: tuple[int, ...]) -> float:
        state, total = np.full(self.codes.shape[1], MASKED), 0.0
        for level in order:
            agree = [row for row in self.codes if all((state == MASKED) | (row == state))]
            occurring = sorted({int(row[level]) for row in agree})
            logits = self.code_logits(NOTHING, state[None])[0, level, occurring]
            logits += self.evidence_weights[level] * self._logs(state, level, occurring)
            code = int(self.codes[leaf, level])
            total += float(log_softmax(logits)[occurring.index(code)])
            state[level] = code
        bucket = np.flatnonzero((self.codes == state).all(axis=1))
        return total + float(log_softmax(self.items[bucket])[bucket.tolist().index(leaf)])

    def _logs(self, state: IntArray, level: int, codes: list[int]) -> FloatArray:
        """log(1 + e / scale) of each of `codes`, item by item."""
        sums = np.zeros(len(codes))
        for row, amount in zip(self.codes, self.evidence, strict=True):
            if all((state == MASKED) | (row == state)):
                sums[codes.index(int(row[level]))] += amount
        logs: FloatArray = np.log1p(sums / 0.02).astype(np.float32)
        return logs


@st.composite
def tables(draw: st.DrawFn) -> tuple[MaskedTable, BoolArray, Unmasking]:
    """Small catalogues, which of their items are legal, and a way to search them."""
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 4)))
    codes: IntArray = draw(npst.arrays(np.int64, shape, elements=st.integers(0, 3)))
    table = MaskedTable.random(codes, draw(st.integers(0, 2**32 - 1)))
    legal: BoolArray = draw(npst.arrays(np.bool_, len(codes)))
    ordered = draw(st.integers(1, shape[1]))
    schedule = draw(st.none() | st.permutations(range(ordered, shape[1])).map(tuple))
    return table, legal, Unmasking(ordered, schedule, diversity=draw(st.booleans()))
