import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from model.codebook import nearest_codes
from model.errors import ConfigError, DataError, StageError
from model.taxonomy import Taxonomy
from model.tokens import MAX_BUCKET, levels_from_json
from model.training.embedding.embed import EmbedConfig, embed
from model.training.tokenizers.buckets import bucket_rows
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.report import show_report
from model.training.tokenizers.tokenize import read_features, tokenize
from model.training.tokenizers.tokenizer import Tokenizer
from model.types import AnyArray
from tests.model.training.tokenizers.shop import Item, Shop, small_shop

SMALL = TokenizeConfig(codes=8, category_clusters=4, collaborative_dimensions=8)


class Tokenized:
    """A shop taken through both stages."""

    def __init__(self, shop: Shop, folder: Path, config: TokenizeConfig = SMALL) -> None:
        self.prepared, self.embedded = folder / "prepared", folder / "embedded"
        self.folder = folder / "tokenized"
        shop.write(self.prepared)
        embed(EmbedConfig(model="tfidf", dimensions=16), self.prepared, self.embedded)
        tokenize(config, self.prepared, self.embedded, self.folder)

    def array(self, name: str) -> AnyArray:
        array: AnyArray = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return array

    def json(self, name: str) -> Any:
        return json.loads((self.folder / f"{name}.json").read_text())

    def level_names(self) -> list[str]:
        return [level.name for level in levels_from_json(self.json("levels"))]

    def contents(self, names: Sequence[str]) -> list[bytes]:
        return [(self.folder / name).read_bytes() for name in names]


def test_levels_codes_and_codebooks_agree(tmp_path: Path) -> None:
    found = Tokenized(small_shop(), tmp_path)

    assert found.level_names() == ["category", "title", "description", "collaborative"]
    codes = found.array("codes")
    assert codes.dtype == np.int32
    assert codes.shape == (40, 4)
    for column, level in zip(codes.T, levels_from_json(found.json("levels")), strict=True):
        assert 0 <= column.min() <= column.max() < level.codes <= 8
        assert len(found.array(f"codebooks/{level.name}")) == level.codes
    titles = np.load(found.embedded / "title.npy")
    expected = nearest_codes(titles, found.array("codebooks/title"))
    assert codes[:, 1].tolist() == expected.tolist()


def test_category_codes_follow_the_taxonomy(tmp_path: Path) -> None:
    shop = small_shop()
    found = Tokenized(shop, tmp_path)

    taxonomy_json = found.json("taxonomy")
    assert (taxonomy_json["source"], taxonomy_json["root"]) == ("paths", ["Beauty"])
    taxonomy = Taxonomy.from_json(taxonomy_json["levels"][0])
    codes = found.array("codes")[:, 0].tolist()
    assert [taxonomy.code_paths[code] for code in codes] == [item.path for item in shop.items]


def test_validation_and_test_targets_change_nothing(tmp_path: Path) -> None:
    targets = np.random.default_rng(5).integers(0, 40, 40).tolist()
    files = ["codes.npy", "collaborative.npy", "collaborative_from_text.npy", "taxonomy.json"]

    first = Tokenized(small_shop(), tmp_path / "first")
    second = Tokenized(small_shop(targets=targets), tmp_path / "second")

    assert (first.prepared / "events.parquet").read_bytes() != (
        second.prepared / "events.parquet"
    ).read_bytes()
    assert first.contents(files) == second.contents(files)


def test_training_events_do_change_the_collaborative_vectors(tmp_path: Path) -> None:
    shop = small_shop()
    moved = [
        replace(event, item_id="item-39") if i % 6 == 0 else event
        for i, event in enumerate(shop.events)
    ]

    first = Tokenized(shop, tmp_path / "first")
    second = Tokenized(replace(shop, events=moved), tmp_path / "second")

    assert first.contents(["collaborative.npy"]) != second.contents(["collaborative.npy"])


def test_same_bytes_twice(tmp_path: Path) -> None:
    found = Tokenized(small_shop(), tmp_path)
    files = [str(path.relative_to(found.folder)) for path in found.folder.rglob("*.*")]
    before = found.contents(files)

    tokenize(SMALL, found.prepared, found.embedded, found.folder)

    assert found.contents(files) == before


def test_fallbacks_are_counted(tmp_path: Path) -> None:
    path = ("Beauty", "Nails")
    items = [
        Item("a", title="red polish", description="shiny red", path=path),
        Item("b", title="blue polish", brand="opi", path=path),
        Item("c", title="green polish", path=("Beauty",)),
        Item("d", description="a file for nails", path=path),
        Item("e", brand="essie", path=path),
        Item("f", path=("Beauty", "Hair")),
        Item("g"),
    ]

    fallbacks = Tokenized(Shop(items), tmp_path).json("report")["fallbacks"]

    assert fallbacks["title"] == {"title": 3, "description": 1, "brand": 1, "path": 1, "none": 1}
    assert fallbacks["category"] == {"path": 6, "uncategorised": 1, "merged": 0}
    assert fallbacks["description"]["description"] == 2
    assert sum(fallbacks["description"].values()) == 7
    assert fallbacks["collaborative"] == {"events": 0, "text": 0, "none": 7}


def test_without_paths_clusters_are_named_by_their_words(tmp_path: Path) -> None:
    found = Tokenized(small_shop(with_paths=False), tmp_path)

    taxonomy_json = found.json("taxonomy")
    assert taxonomy_json["source"] == "clusters"
    names = [path[0] for path in taxonomy_json["levels"][0]["code_paths"]]
    assert len(set(names)) == len(names) == 4
    assert any("shampoo" in name or "razor" in name for name in names)
    assert found.json("levels")[0]["kind"] == "text"


def test_one_path_is_enough_to_keep_the_taxonomy(tmp_path: Path) -> None:
    items = [Item(f"i{n}", title=f"word{n}") for n in range(5)]
    items.append(Item("x", title="lamp", path=("Garden", "Lamps")))

    taxonomy = Tokenized(Shop(items), tmp_path).json("taxonomy")

    assert taxonomy["source"] == "paths"
    assert taxonomy["levels"][0]["code_paths"] == [["Garden", "Lamps"], ["Uncategorised"]]


def test_a_path_spreads_over_several_levels(tmp_path: Path) -> None:
    tree = [("B", "x"), ("B", "x", "1"), ("B", "x", "2"), ("B", "y", "1"), ("B", "y", "2", "deep")]
    items = [Item(f"i{n}", title=f"word{n}", path=path) for n, path in enumerate(tree)]

    found = Tokenized(Shop(items), tmp_path, replace_config(category_levels=3))

    assert found.level_names()[:3] == ["category_1", "category_2", "category_3"]
    assert found.array("codes")[:, :3].T.tolist() == [
        [0, 0, 0, 1, 1],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
    ]
    assert found.json("taxonomy")["levels"][2]["code_paths"] == [
        ["B", "x", "", ""],
        ["B", "x", "1", ""],
        ["B", "x", "2", ""],
        ["B", "y", "1", ""],
        ["B", "y", "2", "deep"],
    ]


def test_paths_deeper_than_the_levels_are_cut(tmp_path: Path) -> None:
    tree = [("B", "x", "1", "p"), ("B", "x", "1", "q"), ("B", "x"), ("B", "y", "1"), ("B",)]
    items = [Item(f"i{n}", title=f"word{n}", path=path) for n, path in enumerate(tree)]

    found = Tokenized(Shop(items), tmp_path, replace_config(category_levels=2))

    assert found.array("codes")[:, :2].T.tolist() == [[1, 1, 1, 2, 0], [2, 2, 1, 3, 0]]


def test_levels_without_information_are_dropped(tmp_path: Path) -> None:
    path = ("Beauty",)
    items = [Item(f"i{n}", title=f"word{n}", description="same", path=path) for n in range(6)]

    found = Tokenized(Shop(items), tmp_path)

    assert found.level_names() == ["title"]
    report = found.json("report")
    assert report["dropped_levels"] == ["category", "description", "collaborative"]


@pytest.mark.parametrize(("count", "levels"), [(1, 1), (33, 1), (9000, 2)])
def test_identical_items_still_get_an_id(tmp_path: Path, count: int, levels: int) -> None:
    found = Tokenized(
        Shop([Item(f"i{n:05d}") for n in range(count)]), tmp_path, TokenizeConfig(codes=256)
    )

    codes = found.array("codes")
    assert codes.shape == (count, levels)
    assert {level.kind for level in levels_from_json(found.json("levels"))} == {"residual"}
    assert max(len(rows) for rows in bucket_rows(codes)) <= MAX_BUCKET


def test_colliding_items_get_a_residual_level(tmp_path: Path) -> None:
    items = [Item(f"i{n:03d}", title="red polish", path=("B", "x")) for n in range(100)]
    items += [Item(f"j{n}", title=f"word{n}", path=("B", "y")) for n in range(4)]

    found = Tokenized(Shop(items), tmp_path)

    assert found.level_names()[-1] == "residual"
    report = found.json("report")
    assert report["collisions_before_residual"]["largest_bucket"] == 100
    assert report["collisions"]["largest_bucket"] == 25
    assert not found.array("codes")[100:, -1].any()


def test_level_order_permutes_the_columns(tmp_path: Path) -> None:
    order = ["collaborative", "title", "category", "description"]

    straight = Tokenized(small_shop(), tmp_path / "straight")
    shuffled = Tokenized(small_shop(), tmp_path / "shuffled", replace_config(level_order=order))

    assert shuffled.level_names() == order
    assert np.array_equal(shuffled.array("codes"), straight.array("codes")[:, [3, 1, 0, 2]])


def test_level_order_must_name_the_levels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenize\.level_order \['title'\]"):
        Tokenized(small_shop(), tmp_path, replace_config(level_order=["title"]))


def test_other_items_are_assigned_by_the_fitted_codebooks(tmp_path: Path) -> None:
    found = Tokenized(small_shop(), tmp_path)
    items, _ = read_features(SMALL, found.prepared, found.embedded)
    tokenizer = Tokenizer.fit(items, SMALL)
    half = replace(
        items,
        item_ids=items.item_ids[:7],
        paths=items.paths[:7],
        words=items.words[:7],
        category=items.category[:7],
        title=items.title[:7],
        description=items.description[:7],
        brand=items.brand[:7],
        collaborative=items.collaborative[:7],
        is_observed=items.is_observed[:7],
    )

    assert np.array_equal(tokenizer.assign(half), found.array("codes")[:7])


def test_unfinished_or_foreign_input_is_refused(tmp_path: Path) -> None:
    found = Tokenized(small_shop(), tmp_path)
    np.save(found.embedded / "title.npy", np.zeros((3, 16), np.float32))
    with pytest.raises(StageError, match=r"title\.npy has 3 rows for a catalogue of 40 items"):
        tokenize(SMALL, found.prepared, found.embedded, found.folder)
    (found.embedded / "meta.json").unlink()
    with pytest.raises(StageError, match="cofine embed"):
        tokenize(SMALL, found.prepared, found.embedded, found.folder)


def test_a_failed_run_leaves_no_report(tmp_path: Path) -> None:
    found = Tokenized(small_shop(), tmp_path)

    with pytest.raises(ConfigError):
        tokenize(
            replace_config(level_order=["title"]), found.prepared, found.embedded, found.folder
        )

    assert not (found.folder / "report.json").exists()


def test_an_empty_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no items"):
        Tokenized(Shop([]), tmp_path)


def test_the_report_reads_as_a_table(tmp_path: Path) -> None:
    report = Tokenized(small_shop(), tmp_path).json("report")
    text = io.StringIO()

    show_report(report, Console(file=text, width=160))

    assert "collaborative" in text.getvalue()
    assert "uncategorised" not in text.getvalue()  # sources that nothing took
    assert "40 items" in text.getvalue()


def replace_config(**changes: Any) -> TokenizeConfig:
    return TokenizeConfig.model_validate(SMALL.model_dump() | changes)
