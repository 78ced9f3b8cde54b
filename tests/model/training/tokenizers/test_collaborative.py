import numpy as np

from model.item_features import predict_from_text
from model.training.tokenizers.collaborative import collaborative_vectors, fill_from_text
from model.training.tokenizers.config import TokenizeConfig

CONFIG = TokenizeConfig(collaborative_dimensions=4, collaborative_window=2)


def test_items_bought_together_are_close() -> None:
    # Two groups of items that never meet, and item 6 that nobody bought.
    users = np.repeat(np.arange(8), 3)
    rows = np.array([[0, 1, 2], [3, 4, 5]] * 4).ravel()

    vectors = collaborative_vectors(users, rows, 7, CONFIG)

    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.3 > abs(float(similarity[0, 4]))
    assert not vectors[6].any()
    assert np.allclose(np.linalg.norm(vectors[:6], axis=1), 1.0, atol=1e-5)


def test_only_events_of_one_user_within_the_window_co_occur() -> None:
    users = np.array([0, 0, 0, 0, 1])
    rows = np.array([0, 1, 1, 2, 3])

    vectors = collaborative_vectors(users, rows, 4, CONFIG)

    # 0-1 and 1-2 meet; 0-2 are three events apart; 3 stands alone.
    assert vectors[:3].any(axis=1).all()
    assert not vectors[3].any()


def test_no_events_no_signal() -> None:
    nothing = np.zeros(0, dtype=np.int64)

    assert not collaborative_vectors(nothing, nothing, 3, CONFIG).any()


def test_text_predicts_the_vectors_of_unseen_items() -> None:
    random = np.random.default_rng(0)
    text = random.normal(size=(300, 6)).astype(np.float32)
    truth = text @ random.normal(size=(6, 4)).astype(np.float32) + np.float32(0.5)
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    known = truth.copy()
    known[200:] = 0

    filled, is_observed, weights = fill_from_text(text, known, ridge=0.1)

    assert weights.shape == (7, 4)
    assert is_observed.tolist() == [True] * 200 + [False] * 100
    assert np.array_equal(filled[:200], known[:200])
    assert np.array_equal(filled[200:], predict_from_text(text[200:], weights))
    assert (filled[200:] * truth[200:]).sum(axis=1).mean() > 0.9


def test_without_observations_nothing_is_predicted() -> None:
    filled, is_observed, weights = fill_from_text(
        np.ones((3, 2), np.float32), np.zeros((3, 4), np.float32), ridge=1.0
    )

    assert not filled.any()
    assert not is_observed.any()
    assert weights.shape == (3, 4)
