"""The interface that every way of making codes implements."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from model.tokens import Level
from model.training.tokenizers.features import ItemFeatures
from model.types import IntArray


class Tokenizer(Protocol):
    """Gives items codes; collisions are resolved by the stage, not here."""

    def fit(self, items: ItemFeatures) -> None:
        """Learn the codebooks of all levels from the catalogue."""

    def assign(self, items: ItemFeatures) -> IntArray:
        """Return the codes [N, L] of `items`, which may be others than those of `fit`."""

    def levels(self) -> Sequence[Level]:
        """Return the L fitted levels, coarse to fine; levels without information are absent."""

    def facts(self, items: ItemFeatures) -> dict[str, Any]:
        """Return what report.json tells about fallbacks and dropped levels."""

    def export(self, folder: Path) -> None:
        """Write codebooks/ and taxonomy.json: all that a new item needs to get its codes."""
