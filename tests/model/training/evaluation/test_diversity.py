import numpy as np
import pytest

from model.training.evaluation.diversity import list_diversity
from tests.model.training.evaluation.toy_bundle import toy_bundle


def test_lists_of_the_toy_shop_by_hand() -> None:
    """Items 0-3 are of the kitchen, 4-7 of the bath, 8-11 of the garden; 2 and 3 share an ID."""
    catalog = toy_bundle().catalog
    first = np.full((4, 10), -1)
    first[0, :2] = 2, 3
    first[1, :3] = 0, 4, 8
    first[2, :3] = 0, 1, 4

    found = list_diversity(first[:3], catalog)

    # Distances: 0; (.5 + .5 + .5) / 3, the second codes being equal; (.5 + .5 + 1) / 3.
    assert found["intra_list_distance"] == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)
    assert found["distinct_categories"] == pytest.approx((1 + 3 + 2) / 3)
    first[3, 0] = 5  # one item is no list that could be diverse
    assert list_diversity(first, catalog) == found
    assert list_diversity(first[3:], catalog) == {}
