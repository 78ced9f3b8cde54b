import numpy as np
import pytest

from model.training.evaluation.baselines import (
    ItemNeighbours,
    Popularity,
    popularity_counts,
    tie_order,
)
from model.training.histories import TEST, TRAIN, VALIDATION, Histories, ItemRows


def histories_of(*users: tuple[list[int], list[int]]) -> Histories:
    """Build histories from (items, splits) per user."""
    lengths = [len(items) for items, _ in users]
    return Histories(
        users=[f"u{number}" for number in range(len(users))],
        items=np.concatenate([items for items, _ in users]).astype(np.int32),
        splits=np.concatenate([splits for _, splits in users]).astype(np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def rows(*items: int) -> ItemRows:
    return np.array(items, np.int32)


# users of 0: a b c; of 1: a b; of 2: a c; of 3: c; 4 is only ever held out
HISTORIES = histories_of(
    ([0, 1, 2, 4], [TRAIN, TRAIN, TRAIN, TEST]),
    ([0, 1, 1, 3], [TRAIN, TRAIN, TRAIN, VALIDATION]),
    ([0, 2, 3], [TRAIN, TRAIN, TRAIN]),
)


def test_popularity_counts_training_events_only() -> None:
    counts = popularity_counts(HISTORIES, 5)
    assert counts.tolist() == [3, 3, 2, 1, 0]
    assert tie_order(np.array([1, 4, 4, 2])).tolist() == [1, 2, 3, 0]
    assert Popularity(counts).scores([rows(1), rows()]).tolist() == [[3, 3, 2, 1, 0]] * 2


def test_similarity_is_the_cosine_of_user_sets() -> None:
    similarity = ItemNeighbours.fit(HISTORIES, 5).similarity.toarray()
    assert similarity[0] == pytest.approx([0, 2 / 6**0.5, 2 / 6**0.5, 1 / 3**0.5, 0])
    assert similarity[1] == pytest.approx([2 / 6**0.5, 0, 1 / 2, 0, 0])
    assert (similarity == similarity.T).all()
    assert not similarity.diagonal().any()


def test_only_the_nearest_neighbours_are_kept_ties_by_catalogue_order() -> None:
    similarity = ItemNeighbours.fit(HISTORIES, 5, neighbours=1).similarity.toarray()
    assert similarity[0].nonzero()[0].tolist() == [1]
    assert similarity[3].nonzero()[0].tolist() == [2]
    assert not similarity[4].any()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ItemNeighbours.fit(HISTORIES, 5).similarity.toarray()
    monkeypatch.setattr("model.training.evaluation.baselines.BLOCK_CELLS", 10)
    assert (ItemNeighbours.fit(HISTORIES, 5).similarity.toarray() == whole).all()


def test_recent_items_weigh_more_and_repeats_count_once() -> None:
    model = ItemNeighbours.fit(HISTORIES, 5, decay=0.5)
    similarity = model.similarity.toarray()
    scores = model.scores([rows(1, 3), rows(), rows(3, 1, 3)])
    assert scores[0] == pytest.approx(0.5 * similarity[1] + similarity[3])
    assert scores[1].tolist() == [0.0] * 5
    assert scores[2] == pytest.approx(0.5 * similarity[1] + similarity[3])


def test_no_histories_and_no_events() -> None:
    assert ItemNeighbours.fit(HISTORIES, 5).scores([]).shape == (0, 5)
    empty = ItemNeighbours.fit(histories_of(([0], [TEST])), 5)
    assert empty.scores([rows(0)]).tolist() == [[0.0] * 5]
