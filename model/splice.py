"""Rows taken out of a table and rows put in, for all arrays of a catalogue alike.

Shapes: N rows, R taken out, K put in.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.types import AnyArray, IntArray

SMALL_BYTES = 64 * 2**20
"""One thread copies as much at once; a table of vectors can be a hundred times as large."""


@dataclass(frozen=True)
class Splice:
    """Which rows of N go, and where new ones come."""

    count: int
    """N."""
    removed: IntArray
    """[R] ascending, each once."""
    places: IntArray
    """[K] ascending: the old row before which each new one comes, N for the end."""

    @cached_property
    def moved(self) -> IntArray:
        """The new number of every old row [N], -1 for those taken out."""
        steps = np.zeros(self.count + 1, dtype=np.int64)
        np.add.at(steps, self.places, 1)
        np.subtract.at(steps, self.removed + 1, 1)
        moved: IntArray = np.arange(self.count) + np.cumsum(steps)[: self.count]
        moved[self.removed] = -1
        return moved

    @cached_property
    def added(self) -> IntArray:
        """The number of every new row [K]."""
        gone = np.searchsorted(self.removed, self.places)
        return self.places + np.arange(len(self.places)) - gone

    def rows(self, old: AnyArray, new: AnyArray) -> AnyArray:
        """`old` [N, ...] without those taken out and with `new` [K, ...] put in."""
        new = np.asarray(new).astype(old.dtype, copy=False)
        parts = [part for was, come in self._pieces() for part in (old[was], new[come])]
        return joined(parts)

    def lists(
        self, old: tuple[AnyArray, AnyArray], new: tuple[AnyArray, AnyArray]
    ) -> tuple[AnyArray, AnyArray]:
        """The same for rows of any length, each kind as start [rows + 1] and members."""
        (start, members), (new_start, new_members) = old, new
        new_members = np.asarray(new_members).astype(members.dtype, copy=False)
        parts = []
        for was, come in self._pieces():
            parts.append(members[start[was.start] : start[was.stop]])
            parts.append(new_members[new_start[come.start] : new_start[come.stop]])
        sizes = self.rows(np.diff(start), np.diff(new_start))
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), joined(parts)

    def _pieces(self) -> Iterator[tuple[slice, slice]]:
        """Runs of old rows, and of the new rows that come after each."""
        here = put = 0
        for at, until, onward in self._cuts:
            yield slice(here, at), slice(put, until)
            here, put = onward, until
        yield slice(here, self.count), slice(put, put)

    @cached_property
    def _cuts(self) -> list[tuple[int, int, int]]:
        """Old row at which something changes, new rows put in until there, where old ones go on."""
        at = np.unique(np.concatenate([self.places, self.removed])).astype(np.int64)
        until = np.searchsorted(self.places, at, side="right")
        onward = at + np.isin(at, self.removed)
        return list(zip(at.tolist(), until.tolist(), onward.tolist(), strict=True))


def joined(parts: Sequence[AnyArray]) -> AnyArray:
    """`parts` one below the other; large ones are copied by two threads."""
    if sum(part.nbytes for part in parts) <= SMALL_BYTES:
        return np.concatenate(parts)
    rows = sum(map(len, parts))
    whole = np.empty((rows, *parts[0].shape[1:]), dtype=parts[0].dtype)
    step = max(1, rows * SMALL_BYTES // whole.nbytes)
    jobs, place = [], 0
    for part in parts:
        for start in range(0, len(part), step):
            block = part[start : start + step]
            jobs.append((whole[place : place + len(block)], block))
            place += len(block)
    with ThreadPoolExecutor(2) as threads:
        for copied in [threads.submit(np.copyto, *job) for job in jobs]:
            copied.result()
    return whole
