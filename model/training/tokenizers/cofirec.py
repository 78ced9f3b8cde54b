"""CoFiRec's tokenizer in its k-means form (arXiv 2511.22707).

Category, title, description and collaborative signal become one level each, quantized on their
own: a level does not see the codes before it. The learned semantic encoder of the paper is left
out; centroids are those of the embeddings themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.codebook import nearest_codes
from model.tokens import Level, LevelKind
from model.training.stage_files import save_array, save_json
from model.training.tokenizers.category import CategoryLevels, fit_category
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.fallbacks import FilledVectors, brand_and_remainder, fill
from model.training.tokenizers.features import ItemFeatures
from model.training.tokenizers.kmeans import fit_codebook
from model.types import FloatArray, IntArray


@dataclass(frozen=True)
class _Codebooks:
    """What `fit` learned."""

    category: CategoryLevels
    title: FloatArray
    description: FloatArray
    collaborative: FloatArray


class CofirecTokenizer:
    """Levels category -> title -> description -> collaborative."""

    def __init__(self, config: TokenizeConfig) -> None:
        """Make an unfitted tokenizer."""
        self._config = config
        self._fitted: _Codebooks | None = None

    def fit(self, items: ItemFeatures) -> None:
        """Learn the codebooks of all levels from the catalogue."""
        title = self._codebook(_title(items).vectors)
        self._fitted = _Codebooks(
            category=fit_category(items, self._config),
            title=title,
            description=self._codebook(_description(items, title).vectors),
            collaborative=self._codebook(items.collaborative),
        )

    def assign(self, items: ItemFeatures) -> IntArray:
        """Return the codes int32 [N, L] of `items`."""
        fitted = self._books
        columns = [
            *fitted.category.assign(items),
            nearest_codes(_title(items).vectors, fitted.title),
            nearest_codes(_description(items, fitted.title).vectors, fitted.description),
            nearest_codes(items.collaborative, fitted.collaborative),
        ]
        kept = [
            column
            for column, level in zip(columns, self._all_levels(), strict=True)
            if level.codes > 1
        ]
        stacked = np.array(kept, dtype=np.int32).reshape(len(kept), len(items.paths)).T
        return np.ascontiguousarray(stacked)

    def levels(self) -> Sequence[Level]:
        """Return the fitted levels that tell items apart, coarse to fine."""
        return [level for level in self._all_levels() if level.codes > 1]

    def facts(self, items: ItemFeatures) -> dict[str, Any]:
        """Return the fallbacks used per level and the levels dropped for lack of information."""
        fitted = self._books
        observed = int(items.is_observed.sum())
        predicted = int((items.collaborative.any(axis=1) & ~items.is_observed).sum())
        return {
            "fallbacks": {
                **fitted.category.facts(items),
                "title": _title(items).sources,
                "description": _description(items, fitted.title).sources,
                "collaborative": {
                    "events": observed,
                    "text": predicted,
                    "none": len(items.paths) - observed - predicted,
                },
            },
            "dropped_levels": [level.name for level in self._all_levels() if level.codes <= 1],
        }

    def export(self, folder: Path) -> None:
        """Write codebooks/<level>.npy and taxonomy.json.

        A category level's codebook holds the mean text vector of each category.
        """
        fitted = self._books
        category = fitted.category
        books = [*category.codebooks, fitted.title, fitted.description, fitted.collaborative]
        for level, book in zip(self._all_levels(), books, strict=True):
            save_array(folder / "codebooks" / f"{level.name}.npy", book)
        taxonomies = [
            {"level": level.name, **taxonomy.to_json()}
            for level, taxonomy in zip(category.levels, category.taxonomies, strict=True)
        ]
        save_json(
            folder / "taxonomy.json",
            {"source": category.source, "root": list(category.root), "levels": taxonomies},
        )

    @property
    def _books(self) -> _Codebooks:
        if self._fitted is None:
            raise RuntimeError("the tokenizer is not fitted: call fit first")
        return self._fitted

    def _all_levels(self) -> list[Level]:
        fitted = self._books
        return [
            *fitted.category.levels,
            Level("title", LevelKind.TEXT, len(fitted.title)),
            Level("description", LevelKind.TEXT, len(fitted.description)),
            Level("collaborative", LevelKind.COLLABORATIVE, len(fitted.collaborative)),
        ]

    def _codebook(self, vectors: FloatArray) -> FloatArray:
        config = self._config
        return fit_codebook(vectors, config.codes, iterations=config.iterations, seed=config.seed)


def _title(items: ItemFeatures) -> FilledVectors:
    return fill(
        [
            ("title", items.title),
            ("description", items.description),
            ("brand", items.brand),
            ("path", items.category),
        ]
    )


def _description(items: ItemFeatures, title_codebook: FloatArray) -> FilledVectors:
    title = _title(items).vectors
    centroids = title_codebook[nearest_codes(title, title_codebook)]
    return fill(
        [
            ("description", items.description),
            ("brand and title", brand_and_remainder(items.brand, items.title, centroids)),
            ("title", title),
        ]
    )
