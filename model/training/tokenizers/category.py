"""The category levels: the catalogue's own taxonomy, or clusters of text where it has none."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from model.codebook import nearest_codes
from model.taxonomy import (
    UNCATEGORISED,
    Taxonomy,
    TaxonomyNode,
    build_taxonomy,
    common_root,
    spread_paths,
)
from model.tokens import Level, LevelKind
from model.training.embedding.text_encoder import TOKEN_PATTERN, unit_rows
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.features import ItemFeatures
from model.training.tokenizers.kmeans import fit_codebook
from model.types import CategoryPath, FloatArray, IntArray

NAME_WORDS: Final = 3
"""Words that name a cluster."""


class CategoryLevels(Protocol):
    """One to three levels that tell the category of an item."""

    @property
    def source(self) -> str:
        """Either "paths" or "clusters", as taxonomy.json spells it."""

    @property
    def root(self) -> CategoryPath:
        """The names that all paths start with."""

    @property
    def levels(self) -> Sequence[Level]:
        """The levels, coarse to fine."""

    @property
    def taxonomies(self) -> Sequence[Taxonomy]:
        """The tree of each level."""

    @property
    def codebooks(self) -> Sequence[FloatArray]:
        """The vectors [K, E] of each level's codes."""

    def assign(self, items: ItemFeatures) -> list[IntArray]:
        """Return the codes [N] of each level."""

    def facts(self, items: ItemFeatures) -> dict[str, Any]:
        """Return how many items took which source of a category."""


def fit_category(items: ItemFeatures, config: TokenizeConfig) -> CategoryLevels:
    """Use the taxonomy if a single item has a path; clusters never replace it."""
    if any(items.paths):
        return TaxonomyLevels(items, config)
    return ClusterLevel(items, config)


class TaxonomyLevels:
    """Codes that number the category tree depth-first, each level over its own prefixes."""

    source = "paths"

    def __init__(self, items: ItemFeatures, config: TokenizeConfig) -> None:
        """Number the paths of `items`."""
        count = config.category_levels
        self.root = common_root(items.paths)
        self.taxonomies = [
            build_taxonomy(paths, config.codes)
            for paths in spread_paths(items.paths, self.root, count)
        ]
        names = [f"category_{i}" for i in range(1, count + 1)] if count > 1 else ["category"]
        self.levels = [
            Level(name, LevelKind.CATEGORY, len(taxonomy.code_paths))
            for name, taxonomy in zip(names, self.taxonomies, strict=True)
        ]
        self.codebooks = [
            _mean_vectors(items.category, codes, level.codes)
            for codes, level in zip(self.assign(items), self.levels, strict=True)
        ]

    def assign(self, items: ItemFeatures) -> list[IntArray]:
        """Return the codes [N] of each level; see `Taxonomy.code` for unknown paths."""
        spread = spread_paths(items.paths, self.root, len(self.levels))
        return [
            _path_codes(paths, taxonomy)
            for paths, taxonomy in zip(spread, self.taxonomies, strict=True)
        ]

    def facts(self, items: ItemFeatures) -> dict[str, Any]:
        """Count items with and without a path, and those whose category was merged."""
        spread = spread_paths(items.paths, self.root, len(self.levels))
        given = sum(1 for path in items.paths if path)
        return {
            level.name: {
                "path": given,
                "uncategorised": len(items.paths) - given,
                "merged": _merged_items(paths, taxonomy),
            }
            for level, paths, taxonomy in zip(self.levels, spread, self.taxonomies, strict=True)
        }


class ClusterLevel:
    """Clusters of the items' texts, named by their most characteristic words."""

    source = "clusters"
    root: CategoryPath = ()

    def __init__(self, items: ItemFeatures, config: TokenizeConfig) -> None:
        """Cluster the texts of `items`."""
        codes = min(config.category_clusters, config.codes)
        self.codebooks = [
            fit_codebook(_all_text(items), codes, iterations=config.iterations, seed=config.seed)
        ]
        self.levels = [Level("category", LevelKind.TEXT, len(self.codebooks[0]))]
        self.taxonomies = [
            _named_clusters(items.words, self.assign(items)[0], len(self.codebooks[0]))
        ]

    def assign(self, items: ItemFeatures) -> list[IntArray]:
        """Return the codes [N] of the one level."""
        return [nearest_codes(_all_text(items), self.codebooks[0])]

    def facts(self, items: ItemFeatures) -> dict[str, Any]:
        """Count the items that have a text to be clustered by."""
        own = int(_all_text(items).any(axis=1).sum())
        return {"category": {"text": own, "none": len(items.paths) - own}}


def _merged_items(paths: Sequence[CategoryPath], taxonomy: Taxonomy) -> int:
    merged = {node.path for node in taxonomy.nodes if node.is_merged}
    return sum((path or UNCATEGORISED) in merged for path in paths)


def _path_codes(paths: Sequence[CategoryPath], taxonomy: Taxonomy) -> IntArray:
    code_of = {path: taxonomy.code(path) or 0 for path in set(paths)}
    return np.fromiter((code_of[path] for path in paths), dtype=np.int32, count=len(paths))


def _mean_vectors(vectors: FloatArray, codes: IntArray, count: int) -> FloatArray:
    sums = np.zeros((count, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, codes, vectors)
    return unit_rows(sums.astype(np.float32))


def _all_text(items: ItemFeatures) -> FloatArray:
    return unit_rows(items.title + items.description + items.brand)


def _named_clusters(words: Sequence[str], codes: IntArray, count: int) -> Taxonomy:
    names = _cluster_names(words, codes, count)
    sizes = np.bincount(codes, minlength=count)
    paths: list[CategoryPath] = [(name,) for name in names]
    nodes = [TaxonomyNode((), 0, count, len(codes), is_merged=False)]
    for code, path in enumerate(paths):
        nodes.append(TaxonomyNode(path, code, code + 1, int(sizes[code]), is_merged=False))
    return Taxonomy(tuple(nodes), tuple(paths))


def _cluster_names(words: Sequence[str], codes: IntArray, count: int) -> list[str]:
    """Return the words of each cluster that weigh most when every cluster is one document."""
    documents = [""] * count
    for text, code in zip(words, codes.tolist(), strict=True):
        documents[code] += f" {text}"
    vectorizer = TfidfVectorizer(
        stop_words="english", token_pattern=TOKEN_PATTERN, sublinear_tf=True
    )
    if not any(vectorizer.build_analyzer()(document) for document in documents):
        return [f"Cluster {code + 1}" for code in range(count)]
    weights = vectorizer.fit_transform(documents).toarray()
    vocabulary = vectorizer.get_feature_names_out()
    names: list[str] = []
    for code, row in enumerate(weights):
        best = np.argsort(-row, kind="stable")[:NAME_WORDS]
        name = ", ".join(vocabulary[i] for i in best if row[i] > 0) or "Cluster"
        # Two clusters may share their words; a path must name one.
        names.append(name if name not in names and name != "Cluster" else f"{name} {code + 1}")
    return names
