"""One request on one thread: our search beside what else could answer it."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from model.availability import legal_below
from model.beam_search import beam_search
from model.bundle import Bundle
from model.decoder import GraphStepDecoder
from model.training.export import Stages, read_trained
from model.training.network import TreeTensors
from model.training.search_graph import beam_search as tensor_beam_search
from model.types import FloatArray, IntArray
from tests.benchmarks import floor
from tests.benchmarks.item_search import best_items, hnsw, hnsw_recall
from tests.benchmarks.t5 import PrefixTree, StaticSearch, Tokens, generate, slim, tiger
from tests.benchmarks.timing import take_turns

OURS = "encoder + decoder"
CACHED = "decoder, h cached"
TIGER = "HF T5 generate, TIGER's size"
RECALL_HISTORIES = 50


class Contenders:
    """Everything that answers one request, over one catalogue."""

    def __init__(self, bundle: Bundle, stages: Stages) -> None:
        self.bundle = bundle
        self.counts = legal_below(bundle.tree.trie, np.ones(bundle.manifest.items, dtype=bool))
        self.network = read_trained(stages)[0]
        self._tree = _tensors(bundle)
        self._steps = GraphStepDecoder(bundle.graphs, bundle.tree)
        self._tokens = Tokens(bundle.catalog.codes)
        self._prefixes = PrefixTree(self._tokens)
        shape = self.network.shape
        self._tiger = tiger(self._tokens.count)
        self._slim = slim(self._tokens.count, width=shape.width, layers=shape.blocks)
        self._static = StaticSearch(self._tiger, bundle.tree.trie, self._tokens)
        self._hnsw = hnsw(bundle.tree.item_vectors)

    def hnsw_recall(self, length: int, beams: int) -> float:
        """Of the exact best items for random histories of `length`, which share HNSW finds."""
        vectors, drawn = self.bundle.tree.item_vectors, np.random.default_rng(length)
        leaves = drawn.integers(len(vectors), size=(RECALL_HISTORIES, length))
        many_h = np.stack([self.bundle.graphs.encode(vectors[row]) for row in leaves])
        return hnsw_recall(self._hnsw, vectors, many_h, beams)

    def calls(self, leaves: IntArray, beams: int) -> dict[str, Callable[[], object]]:
        """What to time for a history of `leaves` [T]."""
        bundle, trie, counts = self.bundle, self.bundle.tree.trie, self.counts
        graphs, vectors = bundle.graphs, bundle.tree.item_vectors
        read = vectors[leaves]
        h = graphs.encode(read)
        tokens, levels = self._tokens.history(leaves), trie.levels
        legal = counts[trie.item_start :] > 0
        return {
            OURS: lambda: graphs.search(graphs.encode(read), bundle.tree, counts, beams),
            CACHED: lambda: graphs.search(h, bundle.tree, counts, beams),
            "step path": lambda: beam_search(self._steps, trie, h, counts, beams),
            "exhaustive item scoring": lambda: best_items(vectors, h, legal, beams),
            "faiss HNSW over item vectors": lambda: self._hnsw.search(h[None], beams),
            "PyTorch eager": lambda: self._eager(read, beams),
            "STATIC-style masks, T5 of TIGER's size": lambda: self._static(tokens, beams),
            TIGER: lambda: generate(self._tiger, tokens, self._prefixes, beams, levels),
            "HF T5 generate, our width and depth": lambda: generate(
                self._slim, tokens, self._prefixes, beams, levels
            ),
        }

    @torch.inference_mode()
    def _eager(self, read: FloatArray, beams: int) -> object:
        h = self.network.history_encoder.newest(torch.from_numpy(read)[None])
        sizes = (torch.arange(beams), *map(torch.arange, self.bundle.tree.trie.branching))
        alive = torch.from_numpy(self.counts)
        return tensor_beam_search(self.network.generator, h, self._tree, alive, sizes)


def _tensors(bundle: Bundle) -> TreeTensors:
    tree = bundle.tree
    return TreeTensors(
        torch.from_numpy(tree.trie.child_start.astype(np.int64)),
        torch.tensor(tree.vectors),
        torch.tensor(tree.biases),
    )


def measure(bundle_path: Path, stages: Stages, *, rounds: int) -> dict[str, Any]:
    """All contenders at beams 20, 50, 100 and histories of 10 and 50 items."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    bundle = Bundle.open(bundle_path)
    contenders = Contenders(bundle, stages)
    rate, operator = floor.matmul_flops_per_second(), floor.operator_seconds()
    nodes = {
        name: floor.graph_nodes(bundle_path / f"{name}.onnx") for name in ("encoder", "decoder")
    }
    cases = []
    for length in (10, 50):
        leaves = np.random.default_rng(length).integers(bundle.manifest.items, size=length)
        for beams in (20, 50, 100):
            timed = take_turns(contenders.calls(leaves, beams), rounds=rounds)
            h = bundle.graphs.encode(bundle.tree.item_vectors[leaves])
            flops = floor.encoder_flops(contenders.network.shape, length)
            flops += floor.search_flops(bundle, h, contenders.counts, beams)
            cases.append(
                {
                    "history": length,
                    "beams": beams,
                    "flops": flops,
                    "hnsw_recall": contenders.hnsw_recall(length, beams),
                    "floor_ms": 1_000 * (flops / rate + sum(nodes.values()) * operator),
                    "timings": {name: asdict(timing) for name, timing in timed.items()},
                }
            )
    return {
        "bundle": bundle.bundle_id,
        "items": bundle.manifest.items,
        "width": bundle.manifest.width,
        "gflops_per_second": rate / 1e9,
        "operator_us": operator * 1e6,
        "operators": nodes,
        "cases": cases,
    }


def table(result: dict[str, Any]) -> str:
    """CPU milliseconds per request, one column per case, and the ratios that are aimed at."""
    cases = result["cases"]
    titles = [f"T {case['history']}, W {case['beams']}" for case in cases]
    lines = [f"| CPU ms | {' | '.join(titles)} |", "|---" * (len(cases) + 1) + "|"]

    def row(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    for name in cases[0]["timings"]:
        timings = [case["timings"][name] for case in cases]
        row(
            name,
            [f"{t['cpu_ms']:.2f} ({t['cpu_low_ms']:.2f}-{t['cpu_high_ms']:.2f})" for t in timings],
        )
    row("HNSW's share of the exact best W", [f"{case['hnsw_recall']:.1%}" for case in cases])
    row("floor", [f"{case['floor_ms']:.2f}" for case in cases])

    def times(numerator: str, denominator: str) -> list[str]:
        each = [case["timings"] for case in cases]
        return [f"{t[numerator]['cpu_ms'] / t[denominator]['cpu_ms']:.0f}x" for t in each]

    row(f"{TIGER} / {OURS}", times(TIGER, OURS))
    row(f"{TIGER} / {CACHED}", times(TIGER, CACHED))
    row(
        f"{OURS} / floor",
        [f"{case['timings'][OURS]['cpu_ms'] / case['floor_ms']:.1f}x" for case in cases],
    )
    facts = (
        f"Bundle {result['bundle']}, {result['items']} items, width {result['width']}; matrices "
        f"{result['gflops_per_second']:.0f} GFLOP/s, {result['operator_us']:.2f} us per empty "
        f"operator, operators {result['operators']}."
    )
    return "\n".join([facts, "", *lines, ""])
