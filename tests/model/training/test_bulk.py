import json
from pathlib import Path

import polars as pl
import pytest

from model.errors import ConfigError, DataError
from model.query import Query
from model.recommender import Recommender
from model.training.bulk import BulkConfig, BulkReport, read_users, recommend_users
from tests.model.training.evaluation.toy_bundle import ITEMS, toy_bundle

USERS = ["u1", "u2", "u3", "u1"]
HISTORIES = [["a", "b"], None, ["zzz", "c"], ["zzz"]]


def write_users(path: Path) -> Path:
    frame = pl.DataFrame(
        {"user_id": USERS, "history": HISTORIES},
        schema={"user_id": pl.String, "history": pl.List(pl.String)},
    )
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        texts = [None if history is None else json.dumps(history) for history in HISTORIES]
        pl.DataFrame({"user_id": USERS, "history": texts}).write_csv(path)
    return path


@pytest.mark.parametrize("name", ["users.parquet", "users.csv", "users.jsonl"])
@pytest.mark.parametrize("threads", [1, 3])
def test_lists_are_what_the_recommender_answers(tmp_path: Path, name: str, threads: int) -> None:
    bundle, output = toy_bundle(), tmp_path / "lists.parquet"
    config = BulkConfig(k=11, threads=threads)
    report = recommend_users(config, bundle, write_users(tmp_path / name), output)
    written = pl.read_parquet(output)
    assert written.columns == ["user_id", "item_ids", "scores", "sources"]
    assert written["user_id"].to_list() == USERS
    recommender = Recommender(bundle)
    for row, history in zip(written.iter_rows(named=True), HISTORIES, strict=True):
        expected = recommender.recommend(Query(history or (), k=11)).items
        assert row["item_ids"] == [item.item_id for item in expected]
        assert row["scores"] == pytest.approx([item.score for item in expected])
        assert row["sources"] == [item.source for item in expected]
    assert report == BulkReport(
        users=4, users_without_history=2, unknown_history_items=2, short_lists=1
    )
    assert {path.name for path in tmp_path.iterdir()} == {name, "lists.parquet"}


def test_seen_items_can_be_kept(tmp_path: Path) -> None:
    users, output = write_users(tmp_path / "users.csv"), tmp_path / "lists.parquet"
    recommend_users(BulkConfig(k=12, exclude_seen=False), toy_bundle(), users, output)
    assert sorted(pl.read_parquet(output)["item_ids"][0]) == list(ITEMS)


def test_prepared_folder_gives_complete_histories(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": list(ITEMS)}).write_parquet(tmp_path / "items.parquet")
    events = [("ann", "c", "train"), ("ann", "a", "validation"), ("ann", "b", "test")]
    frame = pl.DataFrame(
        [*events, ("bob", "l", "train")], schema=["user_id", "item_id", "split"], orient="row"
    )
    frame.write_parquet(tmp_path / "events.parquet")
    (tmp_path / "report.json").write_text("{}")
    users = [(user.user_id, list(user.history)) for user in read_users(tmp_path)]
    assert users == [("ann", ["c", "a", "b"]), ("bob", ["l"])]


def test_no_users_give_an_empty_file(tmp_path: Path) -> None:
    users = write_users(tmp_path / "users.parquet")
    pl.read_parquet(users).clear().write_parquet(users)
    report = recommend_users(BulkConfig(), toy_bundle(), users, tmp_path / "lists.parquet")
    assert report.users == 0
    assert pl.read_parquet(tmp_path / "lists.parquet").height == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,history\nu1,\nu2,a b\n", r"row 2, column 'history' is no list; give a list"),
        ('user_id,history\nu1,"[1, 2]"\n', r"row 1, column 'history' is no list"),
        ("user_id,history\n,\n", r"row 1, column 'user_id'"),
        ("user_id,items\nu1,\n", r"column 'history'.*is missing"),
    ],
)
def test_rows_that_are_no_history_are_refused(tmp_path: Path, content: str, message: str) -> None:
    users = tmp_path / "users.csv"
    users.write_text(content)
    with pytest.raises(DataError, match=message):
        recommend_users(BulkConfig(), toy_bundle(), users, tmp_path / "lists.parquet")
    assert not (tmp_path / "lists.parquet").exists()


def test_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    with pytest.raises(ConfigError, match=r"ending in \.parquet"):
        recommend_users(BulkConfig(), toy_bundle(), users, tmp_path / "lists.csv")
    with pytest.raises(ConfigError, match="does not exist"):
        recommend_users(BulkConfig(), toy_bundle(), users, tmp_path / "no" / "lists.parquet")
