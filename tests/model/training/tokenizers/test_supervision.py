"""Codes that tell the category."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.errors import ConfigError
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.rqvae import train_rqvae
from model.training.tokenizers.supervision import UNKNOWN, CategoryClassifier, category_labels

PATHS = [
    ("Shop", "Hair"),
    ("Shop", "Nails", "Polish"),
    ("Shop", "Nails", "Files"),
    (),
    ("Shop", "Hair", "Combs"),
]


def config(**changes: Any) -> TokenizeConfig:
    small = {"codes": 4, "levels": 2, "width": 8, "hidden": [16], "epochs": 150, "batch_size": 64}
    return TokenizeConfig.model_validate(small | {"method": "rqvae"} | changes)


def test_each_depth_numbers_the_names_below_the_root() -> None:
    labels = category_labels(PATHS, config(category_weight=1.0))

    assert labels.tolist() == [[0, UNKNOWN], [1, 2], [1, 1], [UNKNOWN, UNKNOWN], [0, 0]]
    assert category_labels(PATHS, config()).shape == (5, 0)


def test_a_depth_that_tells_nothing_keeps_its_place() -> None:
    """All items below the root share their first name: the second is told by two codewords."""
    paths = [("Shop",), ("Shop", "Hair", "Combs"), ("Shop", "Hair", "Brushes")]
    labels = category_labels(paths, config(category_weight=1.0))
    classifier = CategoryClassifier(labels, 3)
    sums = [torch.randn(3, 3), torch.randn(3, 3)]
    (head,) = classifier.heads

    assert labels.tolist() == [[UNKNOWN, UNKNOWN], [UNKNOWN, 1], [UNKNOWN, 0]]
    expected = functional.cross_entropy(head(sums[1])[[1, 2]], torch.tensor([1, 0]))
    torch.testing.assert_close(classifier.loss(sums, torch.from_numpy(labels)), expected)


def test_without_categories_there_is_nothing_to_tell() -> None:
    with pytest.raises(ConfigError, match=r"tokenize\.category_weight 1\.0 has nothing"):
        category_labels([(), ("Shop",)], config(category_weight=1.0))


def test_the_loss_is_the_cross_entropy_of_what_is_known() -> None:
    labels = category_labels(PATHS, config(category_weight=1.0))
    classifier = CategoryClassifier(labels, 3)
    sums = [torch.randn(5, 3), torch.randn(5, 3)]
    first, second = (head(known) for head, known in zip(classifier.heads, sums, strict=True))

    expected = functional.cross_entropy(first[[0, 1, 2, 4]], torch.tensor([0, 1, 1, 0]))
    expected = expected + functional.cross_entropy(second[[1, 2, 4]], torch.tensor([2, 1, 0]))
    wanted = torch.from_numpy(labels)
    torch.testing.assert_close(classifier.loss(sums, wanted), expected)
    # A batch of which nothing is known says nothing.
    assert float(classifier.loss(sums, torch.full_like(wanted, UNKNOWN))) == 0
    assert float(CategoryClassifier(labels[:, :0], 3).loss(sums, wanted[:, :0])) == 0


def test_supervised_codes_tell_a_category_that_the_text_hardly_shows() -> None:
    """It is the sign of one number among sixteen, where the others vary as much."""
    drawn = np.random.default_rng(0)
    vectors = drawn.normal(size=(200, 16)).astype(np.float32)
    is_hair = vectors[:, 0] > 0
    paths = [("Hair",) if each else ("Nails",) for each in is_hair]

    def purity(weight: float) -> float:
        settings = config(category_weight=weight)
        network = train_rqvae(vectors, settings, category_labels(paths, settings))
        first = network.codes(torch.from_numpy(vectors))[:, 0].numpy()
        hair = [is_hair[first == code].mean() for code in np.unique(first)]
        sizes = [(first == code).mean() for code in np.unique(first)]
        return float(sum(s * max(h, 1 - h) for s, h in zip(sizes, hair, strict=True)))

    assert purity(5.0) > 0.9 > purity(0.0)
