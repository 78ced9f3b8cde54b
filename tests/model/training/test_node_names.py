"""Names of groups: the words that their items have and their siblings have not."""

import numpy as np

from model.training.node_names import node_names
from model.trie import Trie


def names(codes: list[list[int]], titles: list[str]) -> list[str]:
    trie, order = Trie.build(np.array(codes, np.int32))
    assert order.tolist() == list(range(len(codes)))
    table = node_names(trie, titles)
    return [table[node] for node in range(len(table))]


def test_what_siblings_share_does_not_name() -> None:
    codes = [[0, 0], [0, 0], [0, 1], [0, 1], [1, 0], [1, 1]]
    titles = [
        "red shampoo",
        "red shampoo big",
        "mint shampoo",
        "mint shampoo old",
        "soap bar",
        "soap dish",
    ]

    # Root, two nodes of depth 1, four of depth 2; a single item's node needs no name.
    assert names(codes, titles) == [
        "",
        "Shampoo, Mint",
        "Soap, Bar",
        "Red, Big",
        "Mint, Old",
        "",
        "",
    ]


def test_words_that_every_item_has_tell_nothing() -> None:
    assert names([[0], [0], [1], [1]], ["same word", "same word", "same word", "same word"]) == [
        "",
        "",
        "",
    ]


def test_titles_without_words_name_nothing() -> None:
    assert names([[0], [0]], ["", "12 -"]) == ["", ""]
