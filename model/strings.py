"""Many strings as one memory-mapped UTF-8 blob with offsets, and finding one among them by hash."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import compress

import numpy as np

from model.types import AnyArray, BoolArray, IntArray


@dataclass(frozen=True)
class StringTable:
    """Strings number 0 .. n - 1."""

    blob: AnyArray
    """uint8, all strings one after another, UTF-8."""
    offsets: AnyArray
    """int64 [n + 1]"""

    @classmethod
    def build(cls, strings: Iterable[str]) -> "StringTable":
        """Pack `strings` in their order."""
        encoded = [string.encode() for string in strings]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> str:
        start, end = self.offsets[number], self.offsets[number + 1]
        return bytes(self.blob[start:end]).decode()

    def holds(self, numbers: IntArray, encoded: Sequence[bytes]) -> BoolArray:
        """Whether the strings of `numbers` [n] are those of `encoded` [n], in UTF-8."""
        start = self.offsets[numbers]
        lengths = self.offsets[numbers + 1] - start
        same: BoolArray = lengths == np.fromiter(map(len, encoded), np.int64, len(encoded))
        start, lengths = start[same], lengths[same]
        # All bytes of strings of the right length side by side, and where each string ends.
        ends = np.cumsum(lengths)
        places = np.arange(lengths.sum()) + np.repeat(start - (ends - lengths), lengths)
        given = np.frombuffer(b"".join(compress(encoded, same)), np.uint8)
        differing = np.concatenate([[0], np.cumsum(self.blob[places] != given)])
        same[same] = differing[ends] == differing[ends - lengths]
        return same


@dataclass(frozen=True)
class StringIndex:
    """From string to number: sorted 64-bit hashes, so that nothing has to be built at load time."""

    hashes: AnyArray
    """uint64 [n], ascending."""
    numbers: AnyArray
    """int32 [n], the string with that hash."""

    @classmethod
    def build(cls, strings: Sequence[str]) -> "StringIndex":
        """Index `strings` by their place."""
        hashes = string_hashes([string.encode(errors="surrogatepass") for string in strings])
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], order.astype(np.int32))

    def candidates(self, string: str) -> IntArray:
        """Numbers of all strings with the hash of `string`: nearly always none or one."""
        wanted = string_hashes([string.encode(errors="surrogatepass")])
        first, end = (np.searchsorted(self.hashes, wanted, side)[0] for side in ("left", "right"))
        return self.numbers[first:end]

    def find(self, strings: Sequence[str], table: StringTable) -> IntArray:
        """Numbers of `strings` [n] in the `table` that was indexed, -1 for others: int64 [n].

        Many at once cost less than a microsecond each, little of it in this interpreter.
        """
        encoded = [string.encode(errors="surrogatepass") for string in strings]
        wanted = string_hashes(encoded)
        found = np.full(len(strings), -1)
        # In their order, so that neighbours are looked for in the same part of a large index.
        left = np.argsort(wanted)
        places = np.searchsorted(self.hashes, wanted[left])
        while len(left):
            is_inside = places < len(self.hashes)
            left, places = left[is_inside], places[is_inside]
            is_candidate = self.hashes[places] == wanted[left]
            left, places = left[is_candidate], places[is_candidate]
            numbers = self.numbers[places]
            is_it = table.holds(numbers, [encoded[each] for each in left.tolist()])
            found[left[is_it]] = numbers[is_it]
            # Strings that share a hash are neighbours: nearly never is one left here.
            left, places = left[~is_it], places[~is_it] + 1
        return found


def string_hashes(encoded: Sequence[bytes]) -> AnyArray:
    """A 64-bit hash of each string, the same on every machine and in every release (BLAKE2b).

    Half a surrogate pair, which JSON can spell but UTF-8 cannot, is a string like any other that
    no table holds.

    Args:
        encoded: UTF-8, half a pair as `surrogatepass` writes it.

    Returns:
        uint64 [n]
    """
    return np.frombuffer(b"".join(map(_digest, encoded)), dtype="<u8").astype(np.uint64)


def _digest(encoded: bytes) -> bytes:
    hashing = _HASHING.copy()  # faster than to begin anew
    hashing.update(encoded)
    return hashing.digest()


_HASHING = blake2b(digest_size=8)
