"""How different the items of a list are from one another.

Shapes: Q users, N items, L levels.
"""

from itertools import combinations

import numpy as np

from model.catalog import Catalog
from model.types import IntArray


def list_diversity(first: IntArray, catalog: Catalog) -> dict[str, float]:
    """Mean over all lists of two items or more; empty when there are none.

    Args:
        first: leaves [Q, 10] of the best items, negative where a list is shorter.
        catalog: knows their categories and codes.

    Returns:
        `distinct_categories`, different primary category paths in a list, and
        `intra_list_distance`, the mean share of levels at which two of its items differ.
    """
    lists = first[(first >= 0).sum(axis=1) > 1]
    if len(lists) == 0:
        return {}
    numbers: dict[tuple[str, ...], int] = {}
    category = np.array(
        [numbers.setdefault(catalog.path(leaf), len(numbers)) for leaf in range(len(catalog))]
    )
    real = lists >= 0
    categories = np.sort(np.where(real, category[lists], -1), axis=1)
    new = (np.diff(categories, axis=1) > 0) & (categories[:, :-1] >= 0)
    distances, pairs = np.zeros(len(lists)), np.zeros(len(lists))
    for one, other in combinations(range(lists.shape[1]), 2):
        both = real[:, one] & real[:, other]
        differ = (catalog.codes[lists[:, one]] != catalog.codes[lists[:, other]]).mean(axis=1)
        distances += np.where(both, differ, 0)
        pairs += both
    return {
        "distinct_categories": float(new.sum(axis=1).mean() + 1),
        "intra_list_distance": float((distances / pairs).mean()),
    }
