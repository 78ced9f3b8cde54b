"""Catalogues of any size, made straight as a trie with vectors; nothing is trained.

Ids, titles and categories are made by the column, and followers beyond those of a million items are
the same ones again: made one by one, those of ten million items would take minutes.

Categories are as skewed as 1 / rank, the other three codes uniform among 256: more children per
node than in real catalogues of the size. Item vectors are a random block repeated, because only
their place in memory matters for time. The generator's weights are random.
"""

from pathlib import Path

import numpy as np
import torch

from model.attributes import Attributes
from model.browse import BrowseTree
from model.bundle import GOLDEN, Bundle, catalog_arrays, seal, transition_arrays
from model.catalog import Catalog, Groups, category_key
from model.decoder import Graphs, SearchTree
from model.manifest import FORMAT_VERSION, LevelFacts, Manifest, ScoreFacts
from model.node_hidden import NodeHidden
from model.strings import StringIndex, StringTable
from model.training.decoder_graph import node_weights
from model.training.graphs import export_graphs
from model.training.network import Network, NetworkShape
from model.transitions import FOLLOWERS_MOST, Transitions
from model.trie import Trie
from model.types import AnyArray

WIDTH = 64
CODES = (256, 256, 256, 256)
BLOCK_NODES = 500_000
BLOCK_ITEMS = 1_000_000
ID_DIGITS = 8
NAMES = ("trie", "node_vectors", "node_biases", "node_hidden", "query_weights")


def draw_codes(items: int) -> AnyArray:
    """Semantic IDs uint8 [items, 4]."""
    generator = np.random.default_rng(items)
    weights = 1 / np.arange(1, CODES[0] + 1)
    categories = generator.choice(CODES[0], size=items, p=weights / weights.sum())
    others = generator.integers(256, size=(items, len(CODES) - 1), dtype=np.uint8)
    codes: AnyArray = np.column_stack([categories.astype(np.uint8), others])
    return codes


def write_tree(codes: AnyArray, folder: Path, width: int = WIDTH) -> None:
    """Write the tree's arrays."""
    trie, _ = Trie.build(codes)
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


def map_tree(folder: Path) -> SearchTree:
    """The tree that was written, mapped."""
    child_start, vectors, biases, table, weights = (
        np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in NAMES
    )
    trie = Trie.from_child_start(child_start)
    return SearchTree(trie, vectors, biases, hidden=NodeHidden.known(trie, table, weights))


def synthetic_catalog(codes: AnyArray) -> Catalog:
    """Items with these codes [N, L], in leaf order, called P00000000, P00000001 and so on.

    Titles are the ids, and each item has one category, named for its first code.
    """
    items = len(codes)
    letters = np.full((items, 1 + ID_DIGITS), ord("P"), np.uint8)
    for place in range(ID_DIGITS):
        letters[:, ID_DIGITS - place] = ord("0") + np.arange(items) // 10**place % 10
    names = StringTable(letters.ravel(), np.arange(items + 1) * letters.shape[1])
    present, firsts = np.unique(codes[:, 0], return_index=True)
    keys = [category_key((f"category {code}",)) for code in present.tolist()]
    number = np.searchsorted(present, codes[:, 0]).astype(np.int32)
    return Catalog(
        item_ids=names,
        item_index=StringIndex.build([f"P{leaf:0{ID_DIGITS}}" for leaf in range(items)]),
        titles=names,
        codes=codes,
        categories=StringTable.build(keys),
        category_index=StringIndex.build(keys),
        category_items=Groups(np.append(firsts, items), np.arange(items, dtype=np.int32)),
        item_categories=Groups(np.arange(items + 1), number),
    )


def draw_transitions(items: int) -> Transitions:
    """As many followers of every item as are kept."""
    generator = np.random.default_rng(items)
    count = min(FOLLOWERS_MOST, items)
    drawn = min(items, BLOCK_ITEMS) * count
    followers = generator.integers(items, size=drawn, dtype=np.int32)
    weights = generator.random(drawn, dtype=np.float32)
    size = items * count
    return Transitions(
        np.arange(items + 1) * count, np.resize(followers, size), np.resize(weights, size)
    )


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
    tree = map_tree(folder)
    trie = tree.trie
    codes = codes[np.lexsort(codes.T[::-1])]
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
    catalog = synthetic_catalog(codes)
    unnamed = StringTable(np.empty(0, np.uint8), np.zeros(trie.item_start + 1, np.int64))
    return Bundle(
        path=folder,
        manifest=manifest,
        catalog=catalog,
        attributes=Attributes(),
        browse=BrowseTree(trie, codes, (), unnamed, catalog.titles, catalog.item_ids),
        tree=tree,
        popularity=np.arange(items, dtype=np.int64)[::-1].copy(),
        transitions=draw_transitions(items),
        graphs=graphs or random_graphs(folder),
        golden=(),
    )


def write_bundle(items: int, folder: Path) -> None:
    """Write a whole bundle, of width `WIDTH`, to `folder`."""
    bundle = synthetic_bundle(items, folder)
    names: dict[str, AnyArray] = {
        "node_names_blob.npy": np.empty(0, np.uint8),
        "node_names_offsets.npy": np.zeros(bundle.tree.trie.item_start + 1, np.int64),
        "popularity.npy": bundle.popularity,
    }
    arrays = catalog_arrays(bundle.catalog) | transition_arrays(bundle.transitions) | names
    for name, array in arrays.items():
        np.save(folder / name, array)
    (folder / GOLDEN).write_text("[]")
    seal(folder, bundle.manifest)
