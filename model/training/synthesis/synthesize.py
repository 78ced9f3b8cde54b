"""A synthetic web shop with a known best answer: catalogue, events, and the ideal recommendation.

Every user begins broadly, in one department. The intent then narrows by one node of the category
tree with each event, towards what the user just saw, down to a series. Inside a series a user
mostly goes on to one of the next items of the line (after the last comes the first), else moves
on to a leaf that is related to the present one, and narrows again from there. Nobody sees an item
twice. What comes next therefore depends on the order of the history, on the series and on the
category, all of which the texts carry.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from model.training.synthesis.intent import NOTHING, SERIES, NextItem, first_items, narrowed
from model.training.synthesis.shop import (
    DEPARTMENT,
    Numbers,
    Shop,
    Weights,
    build_shop,
    catalogue,
)
from model.types import BoolArray

SHORTEST_HISTORY, LONGEST_HISTORY = 5, 20
"""Events of a user, both inclusive."""
ORACLE_SIZE = 20
ATTRIBUTES = {"price": "float", "market": "str"}
"""Typed attributes that the catalogue has, as `prepare` wants them declared."""
MARKETS = ("AT", "CH", "DE")

_FIRST_SECOND = 1_700_000_000
_SPREAD_SECONDS = 300 * 86_400
_PAUSE_SECONDS = 240.0
_DAYS_BETWEEN_VISITS = 3.0

_USERS_AT_ONCE = 20_000


class SynthesizeConfig(BaseModel):
    """Size and seed of a synthetic shop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int = Field(default=1_000, ge=100, le=1_000_000, description="Items in the catalogue.")
    users: int = Field(
        default=2_000, ge=10, le=2_000_000, description="Users, with 5 to 20 events each."
    )
    seed: int = Field(default=0, ge=0, description="The same seed gives the same files.")


class SynthesizeReport(BaseModel):
    """What was made, and how good the best possible recommendations for it are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int
    users: int
    events: int
    seed: int
    oracle_ndcg_at_10: float = Field(
        description="NDCG@10 of the true probabilities for every user's last event, seen items "
        "masked; no recommender can expect more."
    )


def synthesize(config: SynthesizeConfig, output: Path) -> SynthesizeReport:
    """Write items.parquet, events.parquet, oracle.parquet and, last, report.json.

    Args:
        config: Size and seed.
        output: The folder, made when absent. An older report is removed first.

    Returns:
        What report.json holds.
    """
    rng = np.random.default_rng(config.seed)
    shop = build_shop(config.items, rng)
    item_ids = pl.Series("item_id", rng.permutation(config.items)).cast(pl.String)
    item_ids = "P" + item_ids.str.zfill(len(str(config.items)))
    items = catalogue(shop, item_ids, rng)
    items = items.with_columns(*_attributes(config))
    top = _heaviest(shop, ORACLE_SIZE + LONGEST_HISTORY)

    events, oracle, gains = [], [], []
    for first in range(0, config.users, _USERS_AT_ONCE):
        users = np.arange(first, min(first + _USERS_AT_ONCE, config.users))
        visits = _visits(shop, len(users), top, rng)
        user_ids = pl.Series("user_id", users).cast(pl.String)
        user_ids = "U" + user_ids.str.zfill(len(str(config.users)))
        events.append(visits.events(user_ids, item_ids))
        oracle.append(visits.oracle(user_ids, item_ids))
        gains.append(visits.gains())
    log = pl.concat(events).sort("timestamp", "user_id", maintain_order=True)
    report = SynthesizeReport(
        **config.model_dump(),
        events=len(log),
        oracle_ndcg_at_10=float(np.concatenate(gains).mean()),
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".partial-") as name:
        folder = Path(name)
        items.write_parquet(folder / "items.parquet")
        log.write_parquet(folder / "events.parquet")
        pl.concat(oracle).write_parquet(folder / "oracle.parquet")
        text = report.model_dump_json(indent=2) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
        for file in ("items.parquet", "events.parquet", "oracle.parquet", "report.json"):
            (folder / file).replace(output / file)
    return report


@dataclass(frozen=True)
class _Visits:
    """What some users saw when; U users, T = `LONGEST_HISTORY`.

    Attributes:
        items: Items oldest first, `NOTHING` after the end [U, T].
        seconds: When, increasing for each user [U, T].
        lengths: Events of each user [U].
        best: The true ranking for each user's last event, `NOTHING` after the end [U, 20].
    """

    items: Numbers
    seconds: Numbers
    lengths: Numbers
    best: Numbers

    def events(self, user_ids: pl.Series, item_ids: pl.Series) -> pl.DataFrame:
        """Return the events, one row each."""
        is_event = self.items != NOTHING
        return pl.DataFrame(
            {
                "user_id": user_ids.gather(np.repeat(np.arange(len(user_ids)), self.lengths)),
                "item_id": item_ids.gather(self.items[is_event]),
                "timestamp": self.seconds[is_event],
                "type": pl.repeat("view", int(self.lengths.sum()), eager=True),
            }
        )

    def oracle(self, user_ids: pl.Series, item_ids: pl.Series) -> pl.DataFrame:
        """Return the ranking of each user, best first."""
        users, _ = np.nonzero(self.best != NOTHING)
        ranked = pl.DataFrame(
            {
                "user_id": user_ids.gather(users),
                "ranking": item_ids.gather(self.best[self.best != NOTHING]),
            }
        )
        return ranked.group_by("user_id", maintain_order=True).agg("ranking")

    def gains(self) -> Weights:
        """Return the NDCG@10 of `best` for each user's last event [U]."""
        last = np.take_along_axis(self.items, self.lengths[:, None] - 1, axis=1)
        hits = self.best[:, :10] == last
        gains: Weights = (hits / np.log2(np.arange(2, 12))).sum(axis=1)
        return gains


def _visits(shop: Shop, users: int, top: Numbers, rng: np.random.Generator) -> _Visits:
    """Walk `users` users through the shop."""
    lengths = rng.integers(SHORTEST_HISTORY, LONGEST_HISTORY + 1, size=users)
    items = np.full((users, LONGEST_HISTORY), NOTHING)
    best = np.full((users, ORACLE_SIZE), NOTHING)
    seconds = np.zeros_like(items)
    seconds[:, 0] = _FIRST_SECOND + rng.integers(_SPREAD_SECONDS, size=users)
    items[:, 0] = first_items(shop, users, rng)
    stage = np.full(users, DEPARTMENT)
    stage = narrowed(shop, stage, items[:, 0], np.zeros(users, dtype=np.bool_))
    for step in range(1, LONGEST_HISTORY):
        active = np.flatnonzero(lengths > step)
        coming = NextItem.of(shop, stage[active], items[active, :step])
        item, is_ahead = coming.draw(rng)
        is_last = lengths[active] == step + 1
        best[active[is_last]] = coming.of_users(is_last).best(top, ORACLE_SIZE)
        is_move = (stage[active] == SERIES) & ~is_ahead
        items[active, step] = item
        seconds[active, step] = seconds[active, step - 1] + _pause(is_move, rng)
        stage[active] = narrowed(shop, stage[active], item, is_ahead)
    return _Visits(items, seconds, lengths, best)


def _attributes(config: SynthesizeConfig) -> list[pl.Series]:
    """Return price and market of every item, drawn apart from the visits, which ignore them."""
    rng = np.random.default_rng([config.seed, 1])
    price = np.exp(rng.normal(3.0, 0.8, config.items)).round(2)
    market = np.array(MARKETS)[rng.integers(len(MARKETS), size=config.items)]
    return [pl.Series("price", price), pl.Series("market", market, dtype=pl.String)]


def _pause(is_move: BoolArray, rng: np.random.Generator) -> Numbers:
    """Return whole seconds between two events; a user who moves on comes back on another day."""
    seconds = 1 + rng.exponential(_PAUSE_SECONDS, len(is_move))
    days = 1 + rng.exponential(_DAYS_BETWEEN_VISITS, len(is_move))
    return (seconds + np.where(is_move, 86_400 * days, 0.0)).astype(np.int64)


def _heaviest(shop: Shop, count: int) -> Numbers:
    """Return the heaviest items of each node [M, count], `NOTHING` where it has fewer."""
    top = np.full((len(shop.start), count), NOTHING)
    for node, (start, end) in enumerate(zip(shop.start, shop.end, strict=True)):
        best = np.argsort(-shop.weight[start:end], kind="stable")[:count]
        top[node, : len(best)] = start + best
    return top
