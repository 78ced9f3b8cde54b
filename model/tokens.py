"""What a code at a level means: the levels of a semantic ID.

Knows nothing of how items get their codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_CODES = 256
"""Most codes of one level."""
MAX_BUCKET = 32
"""Most items that share a full semantic ID."""


class LevelKind(StrEnum):
    """What the codes of a level stand for."""

    CATEGORY = "category"
    """Nodes of the catalogue's own taxonomy, numbered depth-first."""
    TEXT = "text"
    """Centroids of text embeddings."""
    COLLABORATIVE = "collaborative"
    """Centroids of the vectors that say who is bought with whom."""
    FUSED = "fused"
    """Codewords of several views at once, as text and collaborative vectors."""
    RANDOM = "random"
    """Hashes of the item id: what codes without meaning are worth."""
    RESIDUAL = "residual"
    """Parts of a bucket that would otherwise be too large; no meaning beyond it."""


@dataclass(frozen=True)
class Level:
    """One position of the semantic ID; level 0 is the coarsest."""

    name: str
    kind: LevelKind
    codes: int
    """K: the level's codes are 0 .. codes - 1."""

    def to_json(self) -> dict[str, Any]:
        """Return the level as levels.json and the bundle's manifest spell it."""
        return {"name": self.name, "kind": self.kind.value, "codes": self.codes}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Level":
        """Read what `to_json` wrote.

        Raises:
            KeyError, ValueError: a field is missing, or the kind is unknown.
        """
        return cls(str(value["name"]), LevelKind(value["kind"]), int(value["codes"]))


def levels_from_json(values: Sequence[Mapping[str, Any]]) -> tuple[Level, ...]:
    """Read the list in levels.json, coarse to fine."""
    return tuple(Level.from_json(value) for value in values)
