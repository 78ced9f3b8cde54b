import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from model.training.preparation.prepare import PrepareConfig, prepare
from model.training.synthesis.intent import SERIES, NextItem
from model.training.synthesis.shop import LEAF, SECTION, build_shop
from model.training.synthesis.synthesize import SynthesizeConfig, synthesize

FILES = ("items.parquet", "events.parquet", "oracle.parquet", "report.json")


@pytest.fixture(scope="module")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    synthesize(SynthesizeConfig(items=600, users=1_500, seed=3), folder)
    return folder


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES]


def last_events(folder: Path) -> pl.DataFrame:
    events = pl.read_parquet(folder / "events.parquet").sort("user_id", "timestamp")
    return events.group_by("user_id", maintain_order=True).last()


def ndcg_at_10(rankings: pl.DataFrame, targets: pl.DataFrame) -> float:
    joined = targets.join(rankings, on="user_id", how="left", maintain_order="left")
    gains = []
    for target, ranking in zip(joined["item_id"], joined["ranking"], strict=True):
        top = list(ranking)[:10]
        gains.append(1 / np.log2(top.index(target) + 2) if target in top else 0.0)
    return float(np.mean(gains))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        synthesize(SynthesizeConfig(items=150, users=50, seed=seed), tmp_path / name)

    assert digests(tmp_path / "one") == digests(tmp_path / "again")
    assert not set(digests(tmp_path / "one")) & set(digests(tmp_path / "other"))


def test_the_smallest_shop_is_whole(tmp_path: Path) -> None:
    report = synthesize(SynthesizeConfig(items=100, users=400), tmp_path)

    assert report.items == 100
    assert pl.read_parquet(tmp_path / "items.parquet")["item_id"].n_unique() == 100
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize(
    "wrong", [{"items": 99}, {"items": 1_000_001}, {"users": 9}, {"seed": -1}, {"size": 5}]
)
def test_sizes_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SynthesizeConfig.model_validate(wrong)


def test_the_catalogue_looks_like_a_shops(shop_folder: Path) -> None:
    items = pl.read_parquet(shop_folder / "items.parquet")

    depths = items["categories"].list.eval(pl.element().list.len()).list.first()
    assert set(depths.to_list()) == {3, 4}
    for column in ("title", "brand", "description"):
        assert 0 < items.filter(pl.col(column) == "").height < 0.25 * len(items), column
    assert 0 < items.filter(pl.col("categories").list.len() == 2).height < 0.2 * len(items)
    titles = items.filter(pl.col("title") != "")["title"]
    assert titles.n_unique() == len(titles)
    assert items["item_id"].is_sorted()


def test_users_see_5_to_20_items_none_twice_at_increasing_times(shop_folder: Path) -> None:
    events = pl.read_parquet(shop_folder / "events.parquet")
    users = events.group_by("user_id").agg(
        pl.len(), pl.col("item_id").n_unique().alias("items"), pl.col("timestamp").n_unique()
    )

    assert len(users) == 1_500
    assert users["len"].min() == 5
    assert users["len"].max() == 20
    assert users["items"].equals(users["len"], check_names=False)
    assert users["timestamp"].equals(users["len"], check_names=False)
    assert set(events["item_id"]) <= set(pl.read_parquet(shop_folder / "items.parquet")["item_id"])


def test_intents_narrow_from_department_to_leaf(shop_folder: Path) -> None:
    paths = pl.read_parquet(shop_folder / "items.parquet").select(
        "item_id", pl.col("categories").list.first().alias("path")
    )
    events = pl.read_parquet(shop_folder / "events.parquet").sort("user_id", "timestamp")
    walks = (
        events.join(paths, on="item_id", how="left", maintain_order="left")
        .group_by("user_id", maintain_order=True)
        .agg("path")
    )
    shared = [
        [
            all(walk[step][level] == walk[step + 1][level] for level in range(step + 1))
            for step in range(3)
        ]
        for walk in walks["path"].to_list()
    ]

    assert np.array(shared)[:, :2].all()  # the second event shares the department, the third more


def test_the_oracle_never_repeats_and_ranks_20_distinct_items(shop_folder: Path) -> None:
    oracle = pl.read_parquet(shop_folder / "oracle.parquet")
    events = pl.read_parquet(shop_folder / "events.parquet").sort("user_id", "timestamp")
    seen = events.group_by("user_id", maintain_order=True).agg(
        pl.col("item_id").slice(0, pl.len() - 1)
    )
    joined = oracle.join(seen, on="user_id")

    assert len(joined) == 1_500
    assert joined.filter(
        pl.col("ranking").list.set_intersection("item_id").list.len() > 0
    ).is_empty()
    assert joined["ranking"].list.len().max() == 20
    assert joined["ranking"].list.n_unique().equals(joined["ranking"].list.len(), check_names=False)


def test_the_oracle_is_as_good_as_reported_and_far_above_popularity(shop_folder: Path) -> None:
    targets = last_events(shop_folder)
    events = pl.read_parquet(shop_folder / "events.parquet")
    popular = events["item_id"].value_counts(sort=True)["item_id"].head(10).to_list()
    oracle = ndcg_at_10(pl.read_parquet(shop_folder / "oracle.parquet"), targets)
    popularity = ndcg_at_10(targets.select("user_id", pl.lit(popular).alias("ranking")), targets)
    report = pl.read_json(shop_folder / "report.json").row(0, named=True)

    assert oracle == pytest.approx(report["oracle_ndcg_at_10"])
    assert 0.4 < oracle < 0.65
    assert popularity < 0.2 * oracle


def test_the_last_item_predicts_better_than_unordered_co_occurrence(shop_folder: Path) -> None:
    prepare(
        PrepareConfig(
            items=(shop_folder / "items.parquet",), events=(shop_folder / "events.parquet",)
        ),
        shop_folder / "prepared",
    )
    events = pl.read_parquet(shop_folder / "prepared" / "events.parquet")
    numbers = {name: n for n, name in enumerate(sorted(set(events["item_id"])))}
    ids = np.array(list(numbers))
    walks = events.group_by("user_id", maintain_order=True).agg("item_id")
    follows = np.zeros((len(ids), len(ids)))
    together = np.zeros_like(follows)
    histories = []
    for walk in walks["item_id"].to_list():
        history = np.array([numbers[item] for item in walk])
        histories.append(history[:-1])
        train = history[:-2]
        np.add.at(follows, (train[:-1], train[1:]), 1)
        together[np.ix_(train, train)] += 1
    popularity = np.maximum(together.diagonal(), 1)
    together /= np.sqrt(np.outer(popularity, popularity))

    def ranked(scores: list[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> float:
        rows = []
        for score, history in zip(scores, histories, strict=True):
            masked = score.copy()
            masked[history] = -1.0
            rows.append(ids[np.argsort(-masked)[:10]].tolist())
        return ndcg_at_10(
            walks.select("user_id", pl.Series("ranking", rows)), last_events(shop_folder)
        )

    sequential = ranked([follows[history[-1]] for history in histories])
    neighbours = ranked([together[history].sum(axis=0) for history in histories])
    oracle = pl.read_json(shop_folder / "report.json")["oracle_ndcg_at_10"].item()
    assert neighbours < 0.6 * oracle
    assert 0.75 * oracle < sequential < oracle


def test_draws_follow_the_probabilities_that_the_oracle_ranks_by() -> None:
    shop = build_shop(120, np.random.default_rng(0))
    users = 40_000
    history = np.tile([shop.start[shop.nodes[LEAF, 5]], 90, 5], (users, 1))
    coming = NextItem.of(shop, np.full(users, SERIES), history)
    drawn, _ = coming.draw(np.random.default_rng(1))
    everything = np.arange(120)[None, :]
    expected = coming.of_users(np.arange(users) == 0).probability(everything)[0]

    assert expected.sum() == pytest.approx(1.0)
    assert expected[history[0]].sum() == 0.0
    found = np.bincount(drawn, minlength=120) / users
    assert np.abs(found - expected).max() < 0.01
    assert shop.nodes[SECTION].max() < len(shop.paths)


def test_a_leaf_seen_entirely_gives_way_to_the_whole_shop() -> None:
    shop = build_shop(100, np.random.default_rng(0))
    leaf = min(set(shop.nodes[LEAF].tolist()), key=lambda node: shop.end[node] - shop.start[node])
    whole_leaf = np.arange(shop.start[leaf], shop.end[leaf])[None, :].repeat(50, axis=0)
    coming = NextItem.of(shop, np.full(50, LEAF), whole_leaf)
    drawn, _ = coming.draw(np.random.default_rng(0))

    assert not np.isin(drawn, whole_leaf).any()
    assert len(set(drawn.tolist())) > 5
