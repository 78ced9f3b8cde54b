"""The two rankings that every model must beat: popularity and item-kNN, from training events only.

Both rank the whole catalogue, in rows of items.parquet; nothing here knows of codes or bundles.
Ties are broken without looking at the target: by popularity, then by catalogue order.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from model.training.histories import Histories, ItemRows

Scores = npt.NDArray[np.float32]
Matrix = Any  # scipy ships no types; a CSR matrix of float32

BLOCK_CELLS = 4_000_000  # cells of similarity that are held at once, dense: 16 MB


class Baseline(Protocol):
    """Scores the whole catalogue for a batch of histories."""

    def scores(self, inputs: list[ItemRows]) -> Scores:
        """Return [Q, N] scores, higher is better, of Q histories (item rows, oldest first)."""


def popularity_counts(histories: Histories, items: int) -> npt.NDArray[np.int64]:
    """Return [N] training events per item row."""
    return np.bincount(histories.training_events()[1], minlength=items).astype(np.int64)


def tie_order(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the item rows [N] by popularity, most popular first, ties in catalogue order."""
    return np.argsort(-counts, kind="stable")


@dataclass(frozen=True)
class Popularity:
    """PopRec: the same ranking for everybody, by training events.

    Attributes:
        counts: [N] training events per item row.
    """

    counts: npt.NDArray[np.int64]

    def scores(self, inputs: list[ItemRows]) -> Scores:
        """Return [Q, N] training events per item."""
        # float32 holds counts exactly up to 2**24; beyond it neighbours in rank may tie
        return np.tile(self.counts.astype(np.float32), (len(inputs), 1))


@dataclass(frozen=True)
class ItemNeighbours:
    """Item-kNN: items bought by the same users, cosine of binary user sets, recent items first.

    The score of item i for a history is the sum over its items j of `decay ** age(j)` times
    sim(j, i), with sim(j, i) = |users of both| / sqrt(|users of j| |users of i|), kept for the
    `neighbours` nearest items of each j. Age 0 is the newest item; repeats count once, as new.

    Attributes:
        similarity: [N, N] sparse float32, row j holds the kept neighbours of j, never j itself.
        decay: weight lost per step back in the history, in (0, 1].
    """

    similarity: Matrix
    decay: float

    @classmethod
    def fit(
        cls, histories: Histories, items: int, *, neighbours: int = 100, decay: float = 0.6
    ) -> Self:
        """Count co-occurrences in the training events.

        Args:
            histories: the prepared events; only training events are read.
            items: N.
            neighbours: similar items kept per item.
            decay: weight lost per step back in the history.
        """
        users, rows = histories.training_events()
        ones = np.ones(len(rows), np.float32)
        bought = sparse.csr_matrix((ones, (users, rows)), shape=(len(histories), items))
        bought.data[:] = 1.0  # repeats were summed; the user set is binary
        sizes = np.asarray(bought.sum(axis=0)).ravel()
        unit = bought @ sparse.diags(1.0 / np.sqrt(np.maximum(sizes, 1.0)))
        by_item = unit.T.tocsr()
        step = max(1, BLOCK_CELLS // max(items, 1))
        blocks = [
            _nearest(by_item[start : start + step] @ unit, start, neighbours)
            for start in range(0, items, step)
        ]
        similarity = sparse.vstack(blocks, format="csr", dtype=np.float32)
        return cls(similarity, decay)

    def scores(self, inputs: list[ItemRows]) -> Scores:
        """Return [Q, N] scores; an item without a neighbour in the history has 0."""
        lengths = np.fromiter((len(rows) for rows in inputs), np.int64, len(inputs))
        ages = np.concatenate([np.arange(n)[::-1] for n in lengths] or [np.empty(0, np.int64)])
        rows = np.concatenate([*inputs, np.empty(0, np.int32)])
        queries = np.repeat(np.arange(len(inputs)), lengths)
        newest = _first_of_each(queries, rows, ages)
        weights = (self.decay ** ages[newest]).astype(np.float32)
        shape = (len(inputs), self.similarity.shape[0])
        weighted = sparse.csr_matrix((weights, (queries[newest], rows[newest])), shape=shape)
        scores: Scores = (weighted @ self.similarity).toarray()
        return scores


def _first_of_each(
    queries: npt.NDArray[np.int64], rows: ItemRows, ages: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the positions of each (query, item) pair's newest occurrence."""
    order = np.lexsort((ages, rows, queries))
    pairs = np.stack([queries[order], rows[order].astype(np.int64)])
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(pairs, axis=1) != 0).any(axis=0)
    return order[is_first]


def _nearest(block: Matrix, start: int, neighbours: int) -> Matrix:
    """Keep the `neighbours` largest entries of each row; ties go to the first item.

    Args:
        block: [R, N] similarities of items start .. start + R - 1.
        start: the first of these items, needed to drop each item's similarity to itself.
        neighbours: entries kept per row.
    """
    entries = block.tocoo()
    other = entries.col != entries.row + start
    rows, columns, values = entries.row[other], entries.col[other], entries.data[other]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < neighbours
    shape = block.shape
    return sparse.csr_matrix((values[kept], (rows[kept], columns[kept])), shape=shape)
