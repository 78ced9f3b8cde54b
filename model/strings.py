"""Many strings as one memory-mapped UTF-8 blob with offsets, and finding one among them by hash."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from model.types import AnyArray, IntArray


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
        hashes = np.fromiter(map(string_hash, strings), dtype=np.uint64, count=len(strings))
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], order.astype(np.int32))

    def candidates(self, string: str) -> IntArray:
        """Numbers of all strings with the hash of `string`: nearly always none or one."""
        return next(self.candidates_of_each([string]))

    def candidates_of_each(self, strings: Sequence[str]) -> Iterator[IntArray]:
        """`candidates` of many strings; all are looked up before the first is yielded."""
        wanted = np.fromiter(map(string_hash, strings), dtype=np.uint64, count=len(strings))
        first = np.searchsorted(self.hashes, wanted, side="left").tolist()
        end = np.searchsorted(self.hashes, wanted, side="right").tolist()
        return (self.numbers[here:there] for here, there in zip(first, end, strict=True))


def string_hash(string: str) -> int:
    """A 64-bit hash that is the same on every machine and in every release (BLAKE2b).

    Half a surrogate pair, which JSON can spell but UTF-8 cannot, is a string like any other that
    no table holds.
    """
    encoded = string.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")
