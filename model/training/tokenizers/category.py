"""The category levels: the catalogue's own taxonomy, or clusters of text where it has none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from model.item_features import ItemFeatures, unit_rows
from model.quantizers import Quantizer, TaxonomyQuantizer, VectorQuantizer
from model.taxonomy import (
    UNCATEGORISED,
    Taxonomy,
    TaxonomyNode,
    build_taxonomy,
    common_root,
    spread_paths,
)
from model.tokens import Level, LevelKind
from model.training.embedding.text_encoder import TOKEN_PATTERN
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.kmeans import fit_codebook
from model.types import CategoryPath, FloatArray, IntArray
from model.views import view

NAME_WORDS: Final = 3
"""Words that name a cluster."""


@dataclass(frozen=True)
class CategoryLevels:
    """One to three levels that tell the category of an item."""

    source: str
    """Either "paths" or "clusters", as taxonomy.json spells it."""
    root: CategoryPath
    """The names that all paths start with."""
    quantizer: Quantizer
    taxonomies: tuple[Taxonomy, ...]
    """The tree of each level."""
    codebooks: Mapping[str, FloatArray]
    """The vectors [K, E] of each level's codes."""

    def facts(self, items: ItemFeatures) -> dict[str, Any]:
        """Return how many items took which source of a category, by level."""
        if self.source == "clusters":
            return {"category": view("words", items, {}).sources}
        spread = spread_paths(items.paths, self.root, len(self.taxonomies))
        given = sum(1 for path in items.paths if path)
        return {
            level.name: {
                "path": given,
                "uncategorised": len(items) - given,
                "merged": _merged_items(paths, taxonomy),
            }
            for level, paths, taxonomy in zip(
                self.quantizer.levels, spread, self.taxonomies, strict=True
            )
        }

    def to_json(self) -> dict[str, Any]:
        """Return the trees as taxonomy.json spells them."""
        levels = [
            {"level": level.name, **taxonomy.to_json()}
            for level, taxonomy in zip(self.quantizer.levels, self.taxonomies, strict=True)
        ]
        return {"source": self.source, "root": list(self.root), "levels": levels}


def fit_category(items: ItemFeatures, config: TokenizeConfig) -> CategoryLevels:
    """Use the taxonomy if a single item has a path; clusters never replace it."""
    return _taxonomy(items, config) if any(items.paths) else _clusters(items, config)


def _taxonomy(items: ItemFeatures, config: TokenizeConfig) -> CategoryLevels:
    """Number the category tree depth-first, each level over its own prefixes."""
    count = config.category_levels
    root = common_root(items.paths)
    trees = tuple(
        build_taxonomy(paths, config.codes) for paths in spread_paths(items.paths, root, count)
    )
    names = [f"category_{i}" for i in range(1, count + 1)] if count > 1 else ["category"]
    levels = tuple(
        Level(name, LevelKind.CATEGORY, len(tree.code_paths))
        for name, tree in zip(names, trees, strict=True)
    )
    quantizer = TaxonomyQuantizer(levels, root, trees)
    columns = quantizer.codes(items, {}).T
    books = {
        level.name: _mean_vectors(items.category, codes, level.codes)
        for codes, level in zip(columns, levels, strict=True)
    }
    return CategoryLevels("paths", root, quantizer, trees, books)


def _clusters(items: ItemFeatures, config: TokenizeConfig) -> CategoryLevels:
    """Cluster the items' texts, and name the clusters by their most characteristic words."""
    book = fit_codebook(
        view("words", items, {}).vectors,
        min(config.category_clusters, config.codes),
        iterations=config.iterations,
        seed=config.seed,
    )
    level = Level("category", LevelKind.TEXT, len(book))
    quantizer = VectorQuantizer((level,), ("words",), (book,))
    codes = quantizer.codes(items, {})[:, 0]
    tree = _named_clusters(items.words, codes, len(book))
    return CategoryLevels("clusters", (), quantizer, (tree,), {level.name: book})


def _merged_items(paths: Sequence[CategoryPath], taxonomy: Taxonomy) -> int:
    merged = {node.path for node in taxonomy.nodes if node.is_merged}
    return sum((path or UNCATEGORISED) in merged for path in paths)


def _mean_vectors(vectors: FloatArray, codes: IntArray, count: int) -> FloatArray:
    sums = np.zeros((count, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, codes, vectors)
    return unit_rows(sums.astype(np.float32))


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
