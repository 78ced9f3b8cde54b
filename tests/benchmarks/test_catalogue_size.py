"""What the benchmarks of large catalogues measure is a bundle like any other."""

import importlib.util
from pathlib import Path

import pytest

from model.bundle import Bundle
from tests.required import skip_for_want_of

if importlib.util.find_spec("faiss") is None:
    skip_for_want_of("faiss", "install the extra `bench`: pip install -e '.[bench]'")

from tests.benchmarks.opened_bundle import MIB, measure_opened
from tests.benchmarks.synthetic_catalogue import write_bundle

ITEMS = 2_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(ITEMS, folder)
    return folder


def test_the_items_of_a_synthetic_bundle_are_found_by_id_and_by_category(folder: Path) -> None:
    catalog = Bundle.open(folder).catalog
    for leaf in (0, 7, ITEMS - 1):
        assert catalog.item_id(leaf) == f"P{leaf:08}" == catalog.title(leaf)
        assert catalog.leaf(catalog.item_id(leaf)) == leaf
        assert catalog.path(leaf) == (f"category {catalog.codes[leaf, 0]}",)
        assert leaf in catalog.category_items[catalog.category(catalog.path(leaf))]
    sizes = [len(catalog.category_items[number]) for number in range(len(catalog.categories))]
    assert sum(sizes) == ITEMS


def test_every_way_to_search_is_measured(folder: Path) -> None:
    row = measure_opened(folder, rounds=1)
    assert row["items"] == ITEMS
    assert row["timings"].keys() == {"generator", "recommendation", "exhaustive", "HNSW"}
    assert 0.5 < row["hnsw_recall"] <= 1
    assert row["files_mib"] > row["vector_bytes_per_item"] * ITEMS / MIB
