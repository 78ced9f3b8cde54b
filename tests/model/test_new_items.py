"""A bundle gives a new item codes, a vector and a place; with torch out of the way."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.bundle import Bundle
from model.edited_bundle import with_new_items
from model.errors import BundleError, DataError
from model.new_items import ItemEncoder, NewItem
from model.query import Query
from model.recommender import Recommender
from tests.model.bundle_copy import copy_bundle

TWIN = "new-twin"


@pytest.fixture(scope="module")
def bundle(shop_bundle: Path) -> Bundle:
    return Bundle.open(shop_bundle)


@pytest.fixture(scope="module")
def known(shop_bundle: Path) -> list[NewItem]:
    """The catalogue's own items, by leaf, as a shop would give them."""
    items = pl.read_parquet(shop_bundle.parent / "run" / "prepared" / "items.parquet")
    rows = {row["item_id"]: row for row in items.iter_rows(named=True)}
    catalog = Bundle.open(shop_bundle).catalog
    found = [rows[catalog.item_id(leaf)] for leaf in range(len(catalog))]
    return [as_new(row, str(row["item_id"])) for row in found]


def as_new(row: dict[str, object], item_id: str) -> NewItem:
    title, brand, description = (str(row[name]) for name in ("title", "brand", "description"))
    paths = tuple(tuple(path) for path in row["categories"])  # type: ignore[attr-defined]
    return NewItem(item_id, title, brand, description, paths)


def test_the_catalogue_gets_the_codes_of_its_text_levels_again(
    bundle: Bundle, known: list[NewItem]
) -> None:
    encoded = ItemEncoder.open(bundle).encode(known)

    levels = [level.name for level in bundle.manifest.levels]
    for name in ("category", "title", "description"):
        column = levels.index(name)
        same = encoded.codes[:, column] == bundle.catalog.codes[:, column]
        assert same.mean() > 0.99, name  # idf is stored in single precision
    assert np.isfinite(encoded.vectors).all()


def test_a_twin_of_an_item_stands_beside_it(bundle: Bundle, known: list[NewItem]) -> None:
    leaf = int(np.argmax(bundle.popularity))
    original = known[leaf]
    twin = NewItem(TWIN, original.title, original.brand, original.description, original.paths)
    encoded = ItemEncoder.open(bundle).encode([twin])

    live = with_new_items(bundle, [twin], encoded)

    assert len(live.catalog) == len(bundle.catalog) + 1
    new = live.catalog.known_leaf(TWIN)
    assert live.catalog.path(new) == original.path
    assert live.catalog.title(new) == original.title
    assert live.popularity[new] == 0
    for before in range(len(bundle.catalog)):
        after = live.catalog.known_leaf(bundle.catalog.item_id(before))
        assert live.popularity[after] == bundle.popularity[before]
        assert np.array_equal(live.tree.item_vectors[after], bundle.tree.item_vectors[before])
    everything = len(live.catalog)
    answer = Recommender(live).recommend(Query([original.item_id], k=everything))
    assert TWIN in [item.item_id for item in answer.items if item.source == "generated"]
    assert all(item.score <= 0 for item in answer.items)


def test_an_item_that_is_there_is_refused(bundle: Bundle, known: list[NewItem]) -> None:
    encoded = ItemEncoder.open(bundle).encode(known[:1])

    with pytest.raises(DataError, match="is in the catalogue already"):
        with_new_items(bundle, known[:1], encoded)


def test_an_item_about_which_nothing_is_known_gets_a_place(bundle: Bundle) -> None:
    nothing = NewItem("nothing")
    encoded = ItemEncoder.open(bundle).encode([nothing])

    live = with_new_items(bundle, [nothing], encoded)

    assert live.catalog.path(live.catalog.known_leaf("nothing")) == ()


def test_a_bundle_without_encoders_says_what_to_do(shop_bundle: Path, tmp_path: Path) -> None:
    folder = copy_bundle(shop_bundle, tmp_path / "bundle")
    bundle = Bundle.open(folder)
    (folder / "codebooks" / "quantizers.json").unlink()

    with pytest.raises(BundleError, match="tokenize and export it again"):
        ItemEncoder.open(bundle)


def test_no_torch_is_needed(shop_bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from model.bundle import Bundle;"
        "from model.new_items import ItemEncoder, NewItem;"
        "encoder = ItemEncoder.open(Bundle.open(Path(sys.argv[1])));"
        "print(encoder.encode([NewItem('x', title='a red lamp')]).codes.shape);"
        "assert not {'torch', 'sklearn', 'polars', 'scipy', 'faiss'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shop_bundle)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
