"""Codes that are had by about equally many items."""

import numpy as np
import torch

from model.codebook import nearest_codes
from model.item_features import unit_rows
from model.training.tokenizers.balance import balanced_shares
from model.training.tokenizers.kmeans import fit_codebook
from model.types import FloatArray, IntArray


def uneven_topics() -> FloatArray:
    """2,000 unit vectors around twelve directions, from 900 of one to 30 of another."""
    drawn = np.random.default_rng(0)
    sizes = (900, 300, 200, 150, 100, 80, 60, 60, 50, 40, 30, 30)
    topics = drawn.normal(size=(len(sizes), 16))
    centres = np.repeat(topics, sizes, axis=0)
    return unit_rows((centres + drawn.normal(0, 0.35, centres.shape)).astype(np.float32))


def uses(vectors: FloatArray, book: FloatArray) -> IntArray:
    """How many vectors each code is the nearest of."""
    return np.bincount(nearest_codes(vectors, book), minlength=len(book))


def perplexity(counts: IntArray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def test_shares_are_those_of_items_and_codes() -> None:
    scores = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * 3 + torch.arange(5.0)

    shares = balanced_shares(scores, iterations=100)

    torch.testing.assert_close(shares.sum(dim=1), torch.ones(60))
    torch.testing.assert_close(shares.sum(dim=0), torch.full((5,), 12.0), rtol=0.01, atol=0)
    assert float(torch.softmax(scores, dim=1).sum(dim=0).max()) > 20


def test_balanced_codebooks_are_used_more_evenly() -> None:
    vectors = uneven_topics()
    plain, balanced = (
        fit_codebook(vectors, 64, iterations=25, seed=0, balanced=each) for each in (False, True)
    )

    assert balanced.shape == plain.shape == (64, 16)
    assert perplexity(uses(vectors, balanced)) > perplexity(uses(vectors, plain)) + 1
    assert uses(vectors, balanced).min() > uses(vectors, plain).min()
    again = fit_codebook(vectors, 64, iterations=25, seed=0, balanced=True)
    assert np.array_equal(balanced, again)
