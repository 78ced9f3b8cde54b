import numpy as np
import pytest

from model.errors import ConfigError
from model.item_features import ItemFeatures
from model.views import brand_and_remainder, fill, view


def test_each_row_takes_its_first_source_and_is_counted() -> None:
    title = np.array([[1, 0], [0, 0], [0, 0]], dtype=np.float32)
    brand = np.array([[0, 1], [0, 1], [0, 0]], dtype=np.float32)

    filled = fill([("title", title), ("brand", brand)])

    assert filled.vectors.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert filled.sources == {"title": 1, "brand": 1, "none": 1}


def test_brand_and_remainder_weigh_the_same() -> None:
    brand = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=np.float32)
    title = np.array([[0, 1, 0.2], [0, 1, 0.2], [0, 0, 0], [0, 1, 0]], dtype=np.float32)
    centroids = np.array([[0, 1, 0]] * 4, dtype=np.float32)

    both, remainder, brand_alone, nothing = brand_and_remainder(brand, title, centroids)

    assert np.allclose(both, [0.5**0.5, 0, 0.5**0.5])
    assert np.allclose(remainder, [0, 0, 1])
    assert np.allclose(brand_alone, [1, 0, 0])
    assert not nothing.any()


def test_what_a_code_leaves_needs_the_codebook_of_its_level() -> None:
    text = np.eye(2, dtype=np.float32)
    items = ItemFeatures(
        item_ids=("a", "b"),
        paths=((), ()),
        words=("a", "b"),
        category=text,
        title=text,
        description=text,
        brand=text,
        collaborative=text,
        is_observed=np.zeros(2, dtype=np.bool_),
    )

    with pytest.raises(ConfigError, match="take it out of tokenize"):
        view("remainder", items, {})
    assert view("remainder", items, {"title": text}).vectors.shape == (2, 2)
