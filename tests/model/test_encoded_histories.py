"""Histories are read once, whoever asks, and said as the encoder says them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.bundle import Bundle
from model.decoder import Graphs
from model.encoded_histories import EncodedHistories
from model.query import Query
from model.recommender import Recommender


@pytest.fixture(name="bundle", scope="module")
def opened(shop_bundle: Path) -> Bundle:
    return Bundle.open(shop_bundle)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    histories=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=12)
)
def test_it_says_what_the_encoder_says(bundle: Bundle, histories: list[list[int]]) -> None:
    vectors = bundle.tree.item_vectors
    encoded = EncodedHistories(bundle.graphs, vectors, histories_max=3)

    for history in histories:
        expected = bundle.graphs.encode(vectors[history])
        np.testing.assert_array_equal(encoded.encode(np.array(history)), expected)


def test_a_history_is_read_once_for_all_threads(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = replace(bundle)  # nothing read yet
    read = []
    whole = Graphs.encode

    def encode(graphs: Graphs, items: np.ndarray) -> np.ndarray:
        read.append(len(items))
        return whole(graphs, items)

    monkeypatch.setattr(Graphs, "encode", encode)
    ids = [bundle.catalog.item_id(leaf) for leaf in range(3)]
    answers = [Recommender(bundle).recommend(Query(ids)) for _ in range(2)]
    Recommender(bundle).recommend(Query(ids[::-1]))

    assert read == [3, 3]
    assert answers[0].items == answers[1].items


def test_what_is_kept_cannot_be_written(bundle: Bundle) -> None:
    h = bundle.histories.encode(np.array([0, 1]))

    with pytest.raises(ValueError, match="read-only"):
        h[0] = 1


def test_another_state_of_the_items_reads_anew(bundle: Bundle) -> None:
    moved = replace(bundle, tree=replace(bundle.tree, vectors=bundle.tree.vectors[::-1]))
    same = bundle.as_of(3, np.array([1]))

    bundle.histories.encode(np.array([0]))
    assert moved.histories is not bundle.histories
    assert not np.array_equal(
        moved.histories.encode(np.array([0])), bundle.histories.encode(np.array([0]))
    )
    assert same.histories is bundle.histories
