"""The events of a prepared folder as item sequences per user.

The one reader of `events.parquet` for training, baselines and evaluation, so that all of them see
the same order and the same split. Items are rows of `items.parquet` (catalogue order); this file
knows nothing of bundles, leaves or semantic IDs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from model.errors import DataError, StageError

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NUMBERS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}

Split = Literal["validation", "test"]
ItemRows = npt.NDArray[np.int32]


class HeldOut(NamedTuple):
    """One prediction task per user that has an event in the split.

    Attributes:
        users: [Q] int64, indices into `Histories.users`, ascending.
        inputs: Q arrays of item rows, oldest first: every event before the target.
        targets: [Q] int32, the item row to be predicted.
    """

    users: npt.NDArray[np.int64]
    inputs: list[ItemRows]
    targets: ItemRows


@dataclass(frozen=True)
class Histories:
    """Item sequences per user, as flat arrays, sorted by user and then time.

    Attributes:
        users: U user ids.
        items: [E] int32, rows of items.parquet.
        splits: [E] uint8, 0 train, 1 validation, 2 test.
        offsets: [U + 1] int64; user u's events are `items[offsets[u]:offsets[u + 1]]`.
    """

    users: list[str]
    items: ItemRows
    splits: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    def training(self) -> list[ItemRows]:
        """Return U arrays with each user's training events, oldest first; some may be empty."""
        kept = self.splits == TRAIN
        bounds = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        return _slices(self.items[kept], bounds[:-1], bounds[1:])

    def complete(self) -> list[ItemRows]:
        """Return U arrays with all events of each user, whatever their split, oldest first."""
        return _slices(self.items, self.offsets[:-1], self.offsets[1:])

    def training_events(self) -> tuple[npt.NDArray[np.int64], ItemRows]:
        """Return user index [E'] and item row [E'] of every training event, in file order."""
        kept = np.flatnonzero(self.splits == TRAIN)
        return self.user_of_event()[kept], self.items[kept]

    def user_of_event(self) -> npt.NDArray[np.int64]:
        """Return the user index [E] of every event."""
        return np.repeat(np.arange(len(self.users), dtype=np.int64), np.diff(self.offsets))

    def held_out(self, split: Split) -> HeldOut:
        """Return what each user is asked in a split: all events before the target, and the target.

        The target is the user's *first* event of the split: the only one in a leave-one-out split,
        the next one in a split by time. For `test` the input holds the validation events too.
        Users without an event in the split are left out; an input is empty when the user's first
        event of all is the target.
        """
        events = np.flatnonzero(self.splits == SPLIT_NUMBERS[split])
        owners = self.user_of_event()[events]
        users, first = np.unique(owners, return_index=True)
        targets = events[first]
        inputs = _slices(self.items, self.offsets[users], targets)
        return HeldOut(users.astype(np.int64), inputs, self.items[targets])


def read_histories(prepared: Path) -> Histories:
    """Read a prepared folder's events.

    Raises:
        StageError: the folder is not a finished prepared folder.
        DataError: an event names an item that items.parquet does not hold, or the events are not
            sorted by user and split.
    """
    row_of_item = _read(prepared, "items.parquet", ["item_id"]).with_row_index("row")
    events = _read(prepared, "events.parquet", ["user_id", "item_id", "split"])
    numbered = events.join(row_of_item, on="item_id", how="left", maintain_order="left")
    _refuse_unknown(numbered, prepared)
    user_ids = numbered["user_id"]
    starts = np.flatnonzero((user_ids != user_ids.shift(1)).fill_null(value=True).to_numpy())
    split_numbers = numbered["split"].replace_strict(SPLIT_NUMBERS, return_dtype=pl.UInt8)
    histories = Histories(
        users=user_ids.gather(starts).to_list(),
        items=numbered["row"].to_numpy().astype(np.int32),
        splits=split_numbers.to_numpy().copy(),
        offsets=np.append(starts, len(user_ids)).astype(np.int64),
    )
    _refuse_unsorted(histories, prepared)
    return histories


def _read(prepared: Path, name: str, columns: list[str]) -> pl.DataFrame:
    for needed in (name, "report.json"):  # the report is written last: without it, unfinished
        if not (prepared / needed).is_file():
            raise StageError(f"{prepared} has no {needed}; run `cofine prepare` to the end first")
    try:
        return pl.read_parquet(prepared / name, columns=columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise StageError(
            f"{prepared / name} cannot be read ({error}); run `cofine prepare` again"
        ) from error


def _refuse_unknown(numbered: pl.DataFrame, prepared: Path) -> None:
    path = prepared / "events.parquet"
    unknown = numbered.filter(pl.col("row").is_null())["item_id"]
    if len(unknown):
        raise DataError(
            f"{path}: item_id {unknown[0]!r} is not in items.parquet "
            f"({len(unknown)} such events); run `cofine prepare` again"
        )
    other = numbered.filter(~pl.col("split").is_in(list(SPLIT_NUMBERS)))["split"]
    if len(other):
        raise DataError(f"{path}: split {other[0]!r} is none of {', '.join(SPLIT_NUMBERS)}")


def _refuse_unsorted(histories: Histories, prepared: Path) -> None:
    path = prepared / "events.parquet"
    if len(set(histories.users)) != len(histories.users):
        raise DataError(f"{path} is not sorted by user_id; run `cofine prepare` again")
    falls = np.diff(histories.splits.astype(np.int8)) < 0
    inside = np.diff(histories.user_of_event()) == 0
    wrong = np.flatnonzero(falls & inside)
    if len(wrong):
        user = histories.users[int(histories.user_of_event()[wrong[0]])]
        raise DataError(
            f"{path}: user_id {user!r} has a training event after a held-out one; "
            "run `cofine prepare` again"
        )


def _slices(
    items: ItemRows, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> list[ItemRows]:
    return [items[start:end] for start, end in zip(starts, ends, strict=True)]
