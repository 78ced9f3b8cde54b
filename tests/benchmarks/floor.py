"""How fast a request could be at best: its multiplications and the start of its operators.

Reading vectors from memory is not part of the floor.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from model.beam_search import beam_search
from model.bundle import Bundle
from model.decoder import GraphStepDecoder
from model.training.network import NetworkShape
from model.types import AnyArray, FloatArray, IntArray

CHAIN = 200


def matmul_flops_per_second(*, seconds: float = 0.5) -> float:
    """What a large product of float32 matrices gets out of one thread."""
    matrix = np.random.default_rng(0).normal(size=(768, 768)).astype(np.float32)
    best = np.inf
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.process_time()
        matrix @ matrix
        best = min(best, time.process_time() - began)
    return 2 * 768**3 / best


def operator_seconds(*, repeats: int = 300) -> float:
    """What ONNX Runtime spends on an operator that computes next to nothing."""
    times = {length: _chain_seconds(length, repeats) for length in (1, CHAIN)}
    return (times[CHAIN] - times[1]) / (CHAIN - 1)


def _chain_seconds(length: int, repeats: int) -> float:
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("Neg", [f"x{n}"], [f"x{n + 1}"]) for n in range(length)]
    ends = [value(f"x{n}", onnx.TensorProto.FLOAT, ["n"]) for n in (0, length)]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), one_thread())
    feeds, times = {"x0": np.ones(1, np.float32)}, []
    for _ in range(repeats):
        began = time.process_time_ns()
        session.run(None, feeds)
        times.append(time.process_time_ns() - began)
    return float(np.median(times)) / 1e9


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def graph_nodes(path: Path) -> int:
    """Operators left when ONNX Runtime has optimised the graph."""
    with TemporaryDirectory() as folder:
        options = one_thread()
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(str(path), options)
        return len(onnx.load(options.optimized_model_filepath).graph.node)


def encoder_flops(shape: NetworkShape, length: int) -> int:
    """Multiplications and additions of one history of `length` items; the last block is narrow."""
    width = shape.width
    everywhere = length * 2 * 12 * width**2 + 4 * length**2 * width
    last = length * 2 * 2 * width**2 + 2 * 10 * width**2 + 4 * length * width
    return (shape.blocks - 1) * everywhere + last


def search_flops(bundle: Bundle, h: FloatArray, counts: AnyArray, beams: int) -> int:
    """Multiplications and additions of one search: queries of beams, products with children.

    Nodes with one child are not asked, and the first layer of a query is read from a table but
    for the part of h, once per level.
    """
    width, scored = bundle.manifest.width, _Scored(bundle)
    beam_search(scored, bundle.tree.trie, h, counts, beams)
    per_query = 2 * 2 * width**2
    per_level = 2 * 2 * width**2
    levels = bundle.tree.trie.levels + 1
    return scored.parents * per_query + levels * per_level + 2 * width * scored.children


class _Scored:
    """Counts what a search asks and scores."""

    def __init__(self, bundle: Bundle) -> None:
        self._steps = GraphStepDecoder(bundle.graphs, bundle.tree)
        self._child_start = bundle.tree.trie.child_start
        self.parents = self.children = 0

    def child_log_probs(self, h: FloatArray, nodes: IntArray, depth: int) -> FloatArray:
        children = self._child_start[nodes + 1] - self._child_start[nodes]
        self.parents += int((children > 1).sum())
        self.children += int(children[children > 1].sum())
        return self._steps.child_log_probs(h, nodes, depth)
