import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.catalog import Catalog, build_catalog
from model.recent_items import RecentItems
from model.types import IntArray

IDS = [*"abcde"]


def small_catalog() -> Catalog:
    return build_catalog(IDS, [""] * 5, [[]] * 5, np.zeros((5, 1), np.int32))


@given(requests=st.lists(st.lists(st.sampled_from([*IDS, "?", "\ud800", ""]))))
def test_every_request_finds_what_the_catalogue_finds(requests: list[list[str]]) -> None:
    catalog = small_catalog()
    items = RecentItems(catalog, items_max=2)

    for named in requests:
        assert items.leaves(named).tolist() == catalog.leaves(named).tolist()
        assert items.leaves(named).dtype == np.int64


def test_a_named_item_is_not_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    items = RecentItems(small_catalog())
    items.leaves(["a", "?", "c"])
    looked_up: list[str] = []

    def find(_: Catalog, item_ids: list[str]) -> IntArray:
        looked_up.extend(item_ids)
        return np.full(len(item_ids), -1)

    monkeypatch.setattr(Catalog, "find", find)

    assert items.leaves(["c", "a", "b"]).tolist() == [2, 0]
    assert looked_up == ["b"]


def test_memory_is_bounded() -> None:
    items = RecentItems(small_catalog(), items_max=2)

    kept = []
    for item_id in [*IDS, "?", *IDS]:
        items.leaves([item_id])
        kept.append(len(items))

    assert kept == [1, 2, 1, 2, 1, 1, 2, 1, 2, 1, 2]
