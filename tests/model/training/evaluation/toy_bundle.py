"""A bundle of a dozen items whose every score can be worked out by hand, with no ONNX graph.

The encoding of a history is the vector of its newest item; a child's logit is h . v + b.
"""

from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from model.attributes import Attributes, Column
from model.beam_search import BeamResult, beam_search
from model.browse import BrowseTree
from model.bundle import Bundle
from model.catalog import build_catalog
from model.decoder import Graphs, SearchTree
from model.manifest import FORMAT_VERSION, LevelFacts, Manifest, ScoreFacts
from model.strings import StringTable
from model.taxonomy import Taxonomy, TaxonomyNode
from model.transitions import Transitions
from model.trie import Trie
from model.types import AnyArray, FloatArray, IntArray

ITEMS = tuple("abcdefghijkl")
ROOMS = ("Kitchen", "Bath", "Garden")
WIDTH = 6


class ToyGraphs(Graphs):
    """The functions of the exported graphs, in NumPy."""

    def __init__(self) -> None:
        """Load nothing."""

    def encode(self, items: FloatArray) -> FloatArray:
        newest: FloatArray = items[-1].astype(np.float16).astype(np.float32)
        return newest

    def search(self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int) -> BeamResult:
        return beam_search(ToyStep(tree), tree.trie, h, counts, width)

    def child_log_probs(
        self, h: FloatArray, nodes: IntArray, depth: int, tree: SearchTree
    ) -> FloatArray:
        return ToyStep(tree).child_log_probs(h, nodes, depth)


class ToyStep:
    """One level of the search."""

    def __init__(self, tree: SearchTree) -> None:
        self.tree = tree

    def child_log_probs(self, h: FloatArray, nodes: IntArray, depth: int) -> FloatArray:
        starts = self.tree.trie.child_start
        width = self.tree.trie.branching[depth]
        table = np.full((len(nodes), width), -np.inf, np.float32)
        for row, node in enumerate(nodes):
            children = np.arange(starts[node], starts[node + 1])
            logits = self.tree.vectors[children] @ h + self.tree.biases[children]
            table[row, : len(children)] = log_softmax(logits)
        return table


def toy_bundle(*, beam_width: int = 50, seed: int = 0, history_length: int = 4) -> Bundle:
    """Twelve items in three rooms, two levels of codes, and two semantic IDs that are shared."""
    generator = np.random.default_rng(seed)
    codes = np.array([[i // 4, min(i % 4, 2)] for i in range(len(ITEMS))], np.int32)
    trie, order = Trie.build(codes)
    assert order.tolist() == list(range(len(ITEMS)))
    items = generator.normal(size=(len(ITEMS), WIDTH)).astype(np.float32)
    vectors = np.empty((trie.node_count, WIDTH), np.float32)
    biases = np.empty(trie.node_count, np.float32)
    for depth in range(trie.levels + 2):
        nodes = np.arange(trie.depth_start[depth], trie.depth_start[depth + 1])
        for node, first, end in zip(nodes, *trie.leaf_ranges(nodes, depth), strict=True):
            vectors[node] = items[first:end].mean(axis=0)
            biases[node] = np.log(end - first)
    paths = [[("Home", ROOMS[i // 4])] for i in range(len(ITEMS))]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        bundle_id="toy",
        levels=(
            LevelFacts(name="category", kind="category", codes=3),
            LevelFacts(name="title", kind="text", codes=4),
        ),
        items=len(ITEMS),
        nodes=trie.node_count,
        width=WIDTH,
        history_length=history_length,
        beam_width=beam_width,
        score=ScoreFacts(
            fusion_weight=0.5,
            largest_item_norm=float(np.linalg.norm(items, axis=1).max()),
            evidence_weights=(0.4, 0.7, 0.5, 0.6),
            repeat_bias=-0.5,
        ),
        facts={},
        files={},
    )
    catalog = build_catalog(ITEMS, [f"The {item}" for item in ITEMS], paths, codes)
    rooms = tuple(("Home", room) for room in ROOMS)
    places = [((), 0, 3), (("Home",), 0, 3), *((room, i, i + 1) for i, room in enumerate(rooms))]
    categories = [
        TaxonomyNode(path, first, end, 4 * (end - first), is_merged=False)
        for path, first, end in places
    ]
    taxonomy = Taxonomy(tuple(categories), rooms)
    names = StringTable.build([f"Group {node}" for node in range(trie.item_start)])
    return Bundle(
        path=Path("toy"),
        manifest=manifest,
        catalog=catalog,
        attributes=Attributes((Column.build("price", "int", [*range(len(ITEMS))]),)),
        browse=BrowseTree(trie, codes, (taxonomy,), names, catalog.titles, catalog.item_ids),
        tree=SearchTree(trie, vectors, biases),
        popularity=np.arange(len(ITEMS), dtype=np.int64)[::-1].copy(),
        transitions=Transitions.count([np.array([0, 5, 2, 9]), np.array([2, 3, 5])], len(ITEMS)),
        graphs=ToyGraphs(),
        golden=(),
    )
