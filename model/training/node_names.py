"""What a group of items is called: the title words that tell it from its siblings.

A word's weight at a node is what it does to tell it from its parent: c log((c / n) / (p / m)),
where c of the node's n items and p of its parent's m have the word.

Shapes: N items, I inner nodes, V words.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from model.strings import StringTable
from model.trie import Trie
from model.types import AnyArray, IntArray

NAME_WORDS: Final = 2
"""Words of a name."""
MAX_WORDS: Final = 50_000
"""The most frequent title words make the names."""
_WORD = r"(?u)\b[^\W\d_][^\W_]{2,}\b"
"""Three characters and more that begin with a letter."""


def node_names(trie: Trie, titles: Sequence[str]) -> StringTable:
    """Name every inner node with more than one item, "" for others and where no word tells it.

    Args:
        trie: of the catalogue.
        titles: of the items [N], leaf order.
    """
    names = [""] * trie.item_start
    vectorizer = CountVectorizer(
        binary=True, token_pattern=_WORD, max_features=MAX_WORDS, dtype=np.int64
    )
    try:
        has_word = vectorizer.fit_transform(titles).tocsr()
    except ValueError:  # no title has a word
        return StringTable.build(names)
    words = vectorizer.get_feature_names_out()
    above = _counts(trie, has_word, 0)
    for depth in range(1, trie.levels + 1):
        here = _counts(trie, has_word, depth)
        for node, best in _characteristic(trie, depth, here, above).items():
            names[node] = ", ".join(words[word].capitalize() for word in best)
        above = here
    return StringTable.build(names)


def _counts(trie: Trie, has_word: Any, depth: int) -> Any:
    """How many items below each node of a depth have each word, CSR [nodes, V]."""
    first, end = _leaves(trie, depth)
    ones = np.ones(trie.item_count, np.int64)
    below = sparse.csr_matrix(
        (ones, np.arange(trie.item_count), np.append(first, end[-1])),
        shape=(len(first), trie.item_count),
    )
    counts = (below @ has_word).tocsr()
    counts.sort_indices()
    return counts


def _leaves(trie: Trie, depth: int) -> tuple[IntArray, IntArray]:
    nodes = np.arange(trie.depth_start[depth], trie.depth_start[depth + 1])
    return trie.leaf_ranges(nodes, depth)


def _characteristic(trie: Trie, depth: int, here: Any, above: Any) -> dict[int, list[int]]:
    """The words of every node of `depth` that has several items, the most telling first."""
    first, end = _leaves(trie, depth)
    above_first, above_end = _leaves(trie, depth - 1)
    parent = np.searchsorted(above_first, first, side="right") - 1
    rows = np.repeat(np.arange(here.shape[0]), np.diff(here.indptr))
    share = here.data / (end - first)[rows]
    at_parent = _looked_up(above, parent[rows], here.indices)
    parent_share = at_parent / (above_end - above_first)[parent[rows]]
    weight = here.data * np.log(share / parent_share)
    tells = (weight > 0) & ((end - first)[rows] > 1)
    rows, columns, weight = rows[tells], here.indices[tells], weight[tells]
    # Of words that tell as much, the one earlier in the alphabet.
    order = np.lexsort((columns, -weight, rows))
    rows, columns = rows[order], columns[order]
    starts = np.searchsorted(rows, np.unique(rows))
    return {
        int(rows[start]) + trie.depth_start[depth]: [
            int(column)
            for row, column in zip(
                rows[start : start + NAME_WORDS], columns[start : start + NAME_WORDS], strict=True
            )
            if row == rows[start]
        ]
        for start in starts.tolist()
    }


def _looked_up(matrix: Any, rows: IntArray, columns: IntArray) -> AnyArray:
    """The elements of a CSR matrix at places that it holds."""
    width = matrix.shape[1]
    owner = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    keys = owner.astype(np.int64) * width + matrix.indices
    places = np.searchsorted(keys, rows.astype(np.int64) * width + columns)
    found: AnyArray = matrix.data[places]
    return found
