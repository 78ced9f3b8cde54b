"""What the encoder said of the histories that were read last.

A visitor's history often comes again as it was: pages with several lists, a page looked at twice.
Reading it anew costs as much as a third of a search (docs/performance.md). The key is all that the
encoder reads, so what is kept is never out of date.
"""

from functools import lru_cache

import numpy as np

from model.decoder import Graphs
from model.types import FloatArray, IntArray

HISTORIES_MAX = 4_096
"""About seven megabytes at width 256 and fifty items."""


class EncodedHistories:
    """Encodings by one catalogue's item vectors; safe to share between threads."""

    def __init__(
        self, graphs: Graphs, item_vectors: FloatArray, *, histories_max: int = HISTORIES_MAX
    ) -> None:
        """Remember the last `histories_max` histories of items with `item_vectors` [N, D]."""
        self._graphs = graphs
        self._item_vectors = item_vectors
        self._remembered = lru_cache(histories_max)(self._encode)

    def encode(self, leaves: IntArray) -> FloatArray:
        """Leaves [T >= 1], oldest first -> h [D], read-only; see `Graphs.encode`."""
        return self._remembered(leaves.astype(np.int64).tobytes())

    def _encode(self, leaves: bytes) -> FloatArray:
        items = self._item_vectors[np.frombuffer(leaves, np.int64)]
        h = self._graphs.encode(items)
        h.flags.writeable = False
        return h
