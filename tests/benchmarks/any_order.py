"""`python -m tests.benchmarks.any_order`: what unmasking in any order costs, by size of category.

By confidence, a search looks through the items of every beam's category in each step; in order it
walks down the trie. Both search the same catalogues, eight categories of equal size with three more
codes of 256 at random, with an untrained network of width 64. Prints milliseconds of processor per
search on one thread (median of turns, so that other work on the machine hardly moves them).
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from model.availability import legal_below
from model.decoder import SearchTree
from model.diffusion_decoder import DiffusionGraphs
from model.diffusion_search import ANY_ORDER_ITEMS_MAX, CodeTable, Unmasking
from model.training.diffusion_network import DiffusionNetwork
from model.training.graphs import export_graphs
from model.training.network import NetworkShape
from model.trie import Trie
from model.types import IntArray
from tests.benchmarks.timing import Timing, take_turns

WIDTH = 64
CODES = (8, 256, 256, 256)
RANGES = (128, 256, 512, 1024, 2048, 4096, 8192)
EVIDENCED = 200
"""Items with evidence: of a history of a handful of items."""


def draw_codes(items: int) -> IntArray:
    """Semantic IDs [8 * items, 4], sorted, as many in each category."""
    generator = np.random.default_rng(items)
    categories = np.repeat(np.arange(CODES[0]), items)
    others = generator.integers(CODES[1:], size=(len(categories), len(CODES) - 1))
    codes = np.column_stack([categories, others])
    ordered: IntArray = codes[np.lexsort(codes.T[::-1])]
    return ordered


def untrained(folder: Path, ordered_levels: int) -> DiffusionGraphs:
    """The graphs of an untrained network that takes so many levels in order."""
    torch.manual_seed(0)
    shape = NetworkShape(
        width=WIDTH,
        blocks=1,
        heads=2,
        history_length=50,
        text_width=4,
        codebook_sizes=CODES,
        dropout=0.0,
        input_dropout=0.0,
        id_dropout=0.0,
    )
    codes = draw_codes(4)
    leaves, items = torch.from_numpy(codes), len(codes)
    network = DiffusionNetwork(
        shape, Trie.of_sorted(codes), torch.randn(items, 8), leaves, torch.ones(items)
    )
    network.ordered_levels = ordered_levels
    folder.mkdir()
    export_graphs(network, folder)
    sizes, generator = (len(CODES), max(CODES)), np.random.default_rng(0)
    vectors = generator.normal(scale=0.3, size=(*sizes, WIDTH)).astype(np.float32)
    weights = np.full(len(CODES), 0.5, np.float32)
    table = CodeTable(codes, vectors, np.zeros(sizes, np.float32), weights)
    return DiffusionGraphs(folder, threads=1, table=table, unmasking=Unmasking(ordered_levels))


def draw_tree(codes: IntArray) -> SearchTree:
    """Random vectors and evidence over the items of `codes`."""
    trie, generator = Trie.of_sorted(codes), np.random.default_rng(1)
    vectors = generator.normal(scale=0.3, size=(trie.node_count, WIDTH)).astype(np.float32)
    evidence = np.zeros(len(codes), np.float32)
    evidence[generator.permutation(len(codes))[:EVIDENCED]] = 0.05
    return SearchTree(trie, vectors, np.zeros(trie.node_count, np.float32), evidence)


def timed(
    ways: Mapping[str, DiffusionGraphs], items: int, beams: int, rounds: int
) -> dict[str, Timing]:
    """Search categories of so many items each way."""
    codes = draw_codes(items)
    tree, everything = draw_tree(codes), np.ones(len(codes), dtype=bool)
    counts = legal_below(tree.trie, everything)
    h = np.random.default_rng(2).normal(size=WIDTH).astype(np.float32)
    calls = {
        way: partial(graphs.over(replace(graphs.table, codes=codes)).search, h, tree, counts, beams)
        for way, graphs in ways.items()
    }
    return take_turns(calls, rounds=rounds)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.any_order")
    parser.add_argument("--ranges", type=int, nargs="+", default=RANGES)
    parser.add_argument("--beams", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args(arguments)
    sys.stdout.write(
        f"Categories of more than {ANY_ORDER_ITEMS_MAX} items are searched in order.\n\n"
        "| items of a category | by confidence | in order | ratio |\n|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "confidence": untrained(Path(folder) / "confidence", 1),
            "order": untrained(Path(folder) / "order", len(CODES)),
        }
        for items in given.ranges:
            times = timed(ways, items, given.beams, given.rounds)
            slow, fast = times["confidence"].cpu_ms, times["order"].cpu_ms
            line = f"| {items:,} | {slow:.1f} ms | {fast:.1f} ms | {slow / fast:.1f} |\n"
            sys.stdout.write(line)


if __name__ == "__main__":
    main(sys.argv[1:])
