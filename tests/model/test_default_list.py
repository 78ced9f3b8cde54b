"""The order of last resort: by turns, and what was chosen first."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.default_list import default_order, popular_by_group, spread
from tests.model.training.evaluation.toy_bundle import toy_bundle

SOME = settings(max_examples=40, deadline=None)


@SOME
@given(groups=st.lists(st.integers(0, 4), min_size=1, max_size=20), data=st.data())
def test_groups_take_turns_and_each_gives_its_most_popular_first(
    groups: list[int], data: st.DataObject
) -> None:
    ranks = np.array(data.draw(st.permutations(range(len(groups)))))
    codes = np.array(groups, np.uint16)

    order = spread(ranks, codes)
    blocks = popular_by_group(ranks, codes)

    assert sorted(order.tolist()) == sorted(blocks.tolist()) == list(range(len(groups)))
    assert [(groups[leaf], ranks[leaf]) for leaf in blocks] == sorted(
        zip(groups, ranks, strict=True)
    )
    members = {group: [leaf for leaf in blocks if groups[leaf] == group] for group in groups}
    turns = [members[groups[leaf]].index(leaf) for leaf in order]
    assert turns == sorted(turns)
    for turn in set(turns):
        row = [ranks[leaf] for leaf, its in zip(order, turns, strict=True) if its == turn]
        assert row == sorted(row)


def test_chosen_ids_come_first_once_and_unknown_ones_not_at_all() -> None:
    catalog = toy_bundle().catalog
    mixed = np.arange(12)[::-1]

    order = default_order(["d", "?", "a", "d"], catalog, mixed)

    names = "".join(catalog.item_id(leaf) for leaf in order.tolist())
    assert names == "dalkjihgfecb"
