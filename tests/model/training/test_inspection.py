import io

import numpy as np
import pytest
from rich.console import Console, RenderableType

from model.bundle import Bundle
from model.errors import UnknownItemError
from model.training.inspection import (
    InspectConfig,
    buckets_line,
    code_tree,
    code_use,
    inspect_bundle,
    inspect_item,
    nearest_items,
)
from tests.model.training.evaluation.toy_bundle import ITEMS, toy_bundle


@pytest.fixture
def bundle() -> Bundle:
    return toy_bundle()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def shown(console: Console, *things: RenderableType) -> str:
    for thing in things:
        console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_code_use_counts_dead_codes(bundle: Bundle) -> None:
    category, title = code_use(bundle)
    assert (category.codes, category.used, category.largest) == (3, 3, 4)
    assert category.perplexity == pytest.approx(3)
    assert (title.codes, title.used, title.largest) == (4, 3, 6)  # 3 + 3 + 6 of 12 items
    assert title.perplexity == pytest.approx(2**1.5)


def test_shared_semantic_ids_are_counted(bundle: Bundle) -> None:
    assert buckets_line(bundle).startswith("9 semantic IDs; 6 of 12 items share theirs, at most 2")


def test_tree_names_what_the_items_have_in_common(bundle: Bundle, console: Console) -> None:
    text = shown(console, code_tree(bundle, InspectConfig(depth=2, children=2)))
    assert "all items (12)" in text
    assert "category 0: 4 items  Home > Kitchen; The a" in text
    assert "title 2: 2 items  Home > Bath; The g" in text
    assert "category 2" not in text
    assert "... 1 more with 4 items" in text


def test_tree_stops_at_the_depth(bundle: Bundle, console: Console) -> None:
    text = shown(console, code_tree(bundle, InspectConfig(depth=1)))
    assert "category 2" in text
    assert "title" not in text


def test_nearest_items_have_the_largest_cosines(bundle: Bundle) -> None:
    vectors = bundle.tree.item_vectors
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[3]
    expected = [leaf for leaf in np.argsort(-cosines) if leaf != 3]
    found = nearest_items(bundle, 3, 5)
    assert [leaf for leaf, _ in found] == expected[:5]
    assert [cosine for _, cosine in found] == pytest.approx(cosines[expected[:5]])
    assert len(nearest_items(bundle, 3, 50)) == len(ITEMS) - 1


def test_bundle_is_shown_whole(bundle: Bundle, console: Console) -> None:
    inspect_bundle(InspectConfig(), bundle, console)
    text = shown(console)
    assert "bundle toy" in text
    assert "12 items" in text
    assert "perplexity" in text
    assert "Home > Garden" in text


def test_item_is_shown_with_codes_path_and_neighbours(bundle: Bundle, console: Console) -> None:
    inspect_item(InspectConfig(neighbours=1), bundle, "g", console)
    text = shown(console)
    assert "The g" in text
    assert "path: Home > Bath" in text
    assert "training events: 5" in text
    nearest = nearest_items(bundle, ITEMS.index("g"), 1)[0][0]
    assert f"The {ITEMS[nearest]}" in text
    with pytest.raises(UnknownItemError, match="'nope'"):
        inspect_item(InspectConfig(), bundle, "nope", console)
