"""Catalogues of any size, made straight as a trie with vectors; nothing is trained.

Categories are as skewed as 1 / rank, the other three codes uniform among 256: more children per
node than in real catalogues of the size. Item vectors are a random block repeated, because only
their place in memory matters for time. The generator's weights are random.
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.attributes import Attributes
from model.availability import legal_below
from model.browse import BrowseTree
from model.bundle import Bundle
from model.catalog import build_catalog
from model.decoder import Graphs, SearchTree
from model.manifest import FORMAT_VERSION, LevelFacts, Manifest, ScoreFacts
from model.node_hidden import NodeHidden
from model.strings import StringTable
from model.training.decoder_graph import node_weights
from model.training.graphs import export_graphs
from model.training.network import Network, NetworkShape
from model.transitions import FOLLOWERS_MOST, Transitions
from model.trie import Trie
from model.types import AnyArray

WIDTH = 64
CODES = (256, 256, 256, 256)
BLOCK_NODES = 500_000
NAMES = ("trie", "node_vectors", "node_biases", "node_hidden", "query_weights")


@dataclass(frozen=True)
class Loaded:
    """A mapped tree with the counts that one worker holds."""

    tree: SearchTree
    counts: AnyArray
    seconds: float
    """Hashing of the files, mapping, checking the trie and counting."""


def draw_codes(items: int) -> AnyArray:
    """Semantic IDs uint8 [items, 4]."""
    generator = np.random.default_rng(items)
    weights = 1 / np.arange(1, CODES[0] + 1)
    categories = generator.choice(CODES[0], size=items, p=weights / weights.sum())
    others = generator.integers(256, size=(items, len(CODES) - 1), dtype=np.uint8)
    codes: AnyArray = np.column_stack([categories.astype(np.uint8), others])
    return codes


def write_tree(codes: AnyArray, folder: Path, width: int = WIDTH) -> float:
    """Write the tree's arrays; return the CPU seconds of building the trie."""
    began = time.process_time()
    trie, _ = Trie.build(codes)
    seconds = time.process_time() - began
    np.save(folder / "trie.npy", trie.child_start)
    generator = np.random.default_rng(0)
    nodes = trie.node_count
    np.save(folder / "node_biases.npy", np.zeros(nodes, dtype=np.float32))
    block = generator.normal(scale=0.3, size=(min(nodes, BLOCK_NODES), width)).astype(np.float32)
    vectors = np.lib.format.open_memmap(
        folder / "node_vectors.npy", mode="w+", dtype=np.float32, shape=(nodes, width)
    )
    for start in range(0, nodes, BLOCK_NODES):
        part = vectors[start : start + BLOCK_NODES]
        part[:] = block[: len(part)]
    vectors.flush()
    hidden = NodeHidden.build(trie, vectors, node_weights(random_network(width)))
    np.save(folder / "node_hidden.npy", hidden.table)
    np.save(folder / "query_weights.npy", hidden.weights)
    return seconds


def load_tree(folder: Path) -> Loaded:
    """Load as a bundle's tree is loaded, hashes included."""
    began = time.process_time()
    for name in NAMES:
        with (folder / f"{name}.npy").open("rb") as file:
            hashlib.file_digest(file, "sha256")
    child_start, vectors, biases, table, weights = (
        np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in NAMES
    )
    trie = Trie.from_child_start(child_start)
    hidden = NodeHidden.known(trie, table, weights)
    counts = legal_below(trie, np.ones(trie.item_count, dtype=bool))
    seconds = time.process_time() - began
    return Loaded(SearchTree(trie, vectors, biases, hidden=hidden), counts, seconds)


def draw_transitions(items: int) -> Transitions:
    """As many followers of every item as are kept."""
    generator = np.random.default_rng(items)
    count = min(FOLLOWERS_MOST, items)
    followers = generator.integers(items, size=items * count, dtype=np.int32)
    weights = generator.random(items * count, dtype=np.float32)
    return Transitions(np.arange(items + 1) * count, followers, weights)


def random_network(width: int) -> Network:
    """An untrained network of the base preset's depth; always the same one."""
    torch.manual_seed(0)
    shape = NetworkShape(
        width=width,
        blocks=2,
        heads=4,
        history_length=50,
        text_width=4,
        codebook_sizes=CODES,
        dropout=0.0,
        input_dropout=0.0,
        id_dropout=0.0,
    )
    codes = draw_codes(50)
    trie, order = Trie.build(codes)
    leaves = torch.from_numpy(codes[order].astype(np.int64))
    return Network(shape, trie, torch.randn(50, 8), leaves, torch.ones(50))


def random_graphs(folder: Path) -> Graphs:
    """The graphs of the network of width `WIDTH`."""
    export_graphs(random_network(WIDTH), folder)
    return Graphs(folder, threads=1)


def synthetic_bundle(
    items: int, folder: Path, graphs: Graphs | None = None, *, width: int = WIDTH
) -> Bundle:
    """An opened bundle whose items have one category each, named for its code.

    Without `graphs` those of an untrained network of width `WIDTH` are exported.
    """
    codes = draw_codes(items)
    write_tree(codes, folder, width)
    loaded = load_tree(folder)
    trie = loaded.tree.trie
    codes = codes[np.lexsort(codes.T[::-1])]
    ids = [f"P{leaf:08}" for leaf in range(items)]
    paths = [[(f"category {code}",)] for code in codes[:, 0].tolist()]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        bundle_id="synthetic",
        levels=tuple(
            LevelFacts(name=f"level {n}", kind="text", codes=256) for n in range(len(CODES))
        ),
        items=items,
        nodes=trie.node_count,
        width=width,
        history_length=50,
        beam_width=50,
        score=ScoreFacts(
            fusion_weight=1.0,
            largest_item_norm=5.0,
            evidence_weights=(0.5,) * (len(CODES) + 2),
            repeat_bias=-20.0,
        ),
        facts={},
        files={},
    )
    catalog = build_catalog(ids, ids, paths, codes)
    unnamed = StringTable(np.empty(0, np.uint8), np.zeros(trie.item_start + 1, np.int64))
    return Bundle(
        path=folder,
        manifest=manifest,
        catalog=catalog,
        attributes=Attributes(),
        browse=BrowseTree(trie, codes, (), unnamed, catalog.titles, catalog.item_ids),
        tree=loaded.tree,
        popularity=np.arange(items, dtype=np.int64)[::-1].copy(),
        transitions=draw_transitions(items),
        graphs=graphs or random_graphs(folder),
        golden=(),
    )
