"""Recommendations for many users at once: a file of histories in, a Parquet of lists out.

Uses the same recommender as the service, a thread each. Knows no state store and no events.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress, TaskID

from model.bundle import Bundle
from model.errors import ConfigError, DataError
from model.query import Query, Recommendation
from model.recommender import Recommender
from model.training.histories import read_histories
from model.training.table_file import ROW, TableFile, identifier_check

REMEDY = 'give a list of item ids, oldest first; in CSV as JSON text, as in ["a", "b"]'


class BulkConfig(BaseModel):
    """How lists are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(default=10, ge=1, le=100, description="items per list")
    exclude_seen: bool = Field(default=True, description="leave out the items of the history")
    threads: int = Field(default=2, ge=1, le=64, description="worker threads, one recommender each")


class BulkReport(BaseModel):
    """What was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: int = Field(description="lists written, one per input row, in input order")
    users_without_history: int = Field(description="users without a known item: popular items")
    unknown_history_items: int = Field(description="history entries the bundle does not hold")
    short_lists: int = Field(description="lists with fewer than k items")


@dataclass(frozen=True)
class UserHistory:
    """One row of the input."""

    user_id: str
    history: Sequence[str]


def recommend_users(config: BulkConfig, bundle: Bundle, users: Path, output: Path) -> BulkReport:
    """Write one list per user as Parquet: user_id, item_ids, scores, sources, best item first.

    Args:
        config: how lists are made.
        bundle: an opened bundle.
        users: a prepared folder, whose users' complete histories are used, or a Parquet, CSV or
            JSON Lines file with `user_id` and `history`: item ids, oldest first, null or empty
            for a new user. In CSV a history is written as JSON: `["a", "b"]`.
        output: the Parquet file; it appears whole or not at all.

    Raises:
        StageError: the prepared folder is unfinished.
        DataError: the users cannot be read.
        ConfigError: the output does not end in .parquet or its folder does not exist.
    """
    if output.suffix.lower() != ".parquet":
        raise ConfigError(f"{output}: lists are written as Parquet; give a name ending in .parquet")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: the folder {output.parent} does not exist; create it first")
    rows = read_users(users)
    answers = _recommend(config, bundle, rows)
    _write(rows, answers, output)
    known = [
        len(row.history) - answer.unknown_history_items
        for row, answer in zip(rows, answers, strict=True)
    ]
    return BulkReport(
        users=len(rows),
        users_without_history=known.count(0),
        unknown_history_items=sum(answer.unknown_history_items for answer in answers),
        short_lists=sum(len(answer.items) < config.k for answer in answers),
    )


def read_users(users: Path) -> list[UserHistory]:
    """Read users and their histories from a prepared folder or a table.

    Raises:
        StageError: the prepared folder is unfinished.
        DataError: the table is missing, broken, lacks a column, or has a row that is no history.
    """
    return _read_prepared(users) if users.is_dir() else _read_table(TableFile(users))


def _read_prepared(prepared: Path) -> list[UserHistory]:
    histories = read_histories(prepared)
    column = pl.read_parquet(prepared / "items.parquet", columns=["item_id"])["item_id"]
    item_ids = np.array(column.to_list(), dtype=object)
    return [
        UserHistory(user_id, item_ids[rows].tolist())
        for user_id, rows in zip(histories.users, histories.complete(), strict=True)
    ]


def _read_table(table: TableFile) -> list[UserHistory]:
    frame = table.scan(["user_id", "history"], [])
    table.refuse_bad_rows(frame, [identifier_check(table, "user_id")])
    with table.reading():
        rows = frame.with_columns(pl.col("user_id").cast(pl.String)).collect()
    histories = rows["history"].to_list()
    if table.is_text("history"):
        histories = [_parsed(text) for text in histories]
    for number, history in zip(rows[ROW], histories, strict=True):
        if not _is_history(history):
            raise DataError(f"{table.path}: row {number}, column 'history' is no list; {REMEDY}")
    return [
        UserHistory(user_id, history or ())
        for user_id, history in zip(rows["user_id"], histories, strict=True)
    ]


def _parsed(text: str | None) -> object:
    if text is None or not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_history(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and all(isinstance(item_id, str) for item_id in value)


def _recommend(
    config: BulkConfig, bundle: Bundle, rows: Sequence[UserHistory]
) -> list[Recommendation]:
    size = max(1, -(-len(rows) // config.threads))
    with Progress(transient=True) as progress, ThreadPoolExecutor(config.threads) as pool:
        bar = progress.add_task("recommend", total=len(rows))
        work = [
            pool.submit(
                _recommend_share,
                config,
                Recommender(bundle),
                rows[start : start + size],
                (progress, bar),
            )
            for start in range(0, len(rows), size)
        ]
        return [answer for share in work for answer in share.result()]


def _recommend_share(
    config: BulkConfig,
    recommender: Recommender,
    rows: Sequence[UserHistory],
    shown: tuple[Progress, TaskID],
) -> list[Recommendation]:
    progress, bar = shown
    answers = []
    for row in rows:
        query = Query(history=row.history, k=config.k, exclude_seen=config.exclude_seen)
        answers.append(recommender.recommend(query))
        progress.advance(bar)
    return answers


def _write(rows: Sequence[UserHistory], answers: Sequence[Recommendation], output: Path) -> None:
    frame = pl.DataFrame(
        {
            "user_id": [row.user_id for row in rows],
            "item_ids": [[item.item_id for item in answer.items] for answer in answers],
            "scores": [[item.score for item in answer.items] for answer in answers],
            "sources": [[item.source for item in answer.items] for answer in answers],
        },
        schema={
            "user_id": pl.String,
            "item_ids": pl.List(pl.String),
            "scores": pl.List(pl.Float64),
            "sources": pl.List(pl.String),
        },
    )
    temporary = output.with_name(output.name + ".partial")
    frame.write_parquet(temporary)
    temporary.replace(output)
