"""The one door to ONNX Runtime: the exported graphs as plain functions of NumPy arrays.

Shapes: T history length, D width, W beams, L levels, M trie nodes, I inner nodes, N items.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from model.beam_search import BeamResult
from model.errors import BundleError
from model.node_hidden import NodeHidden
from model.trie import Trie
from model.types import AnyArray, FloatArray, IntArray

GRAPHS = ("encoder", "decoder", "step", "item_encoder")
BLOCK = 8
"""Children that the decoder reads together; the places of a depth come in whole blocks."""
_TREE = {"child_start", "vectors", "biases"}


@dataclass(frozen=True)
class SearchTree:
    """What a search reads besides h: they are inputs of the graphs, never part of them."""

    trie: Trie
    vectors: FloatArray
    """[M, D]; the last N rows are the item vectors"""
    biases: FloatArray
    """[M]"""
    evidence: FloatArray = field(default_factory=lambda: np.empty(0, np.float32))
    """What transitions say of each item after the history that is being read [N]; empty where
    none is. Node biases have it already: it is for decoders that do not score nodes alone."""
    hidden: NodeHidden | None = None
    """What is known of the nodes' queries before a request; None where `decoder.onnx` asks no
    nodes, as that of a diffusion bundle."""

    @property
    def item_vectors(self) -> FloatArray:
        """[N, D], leaf order."""
        return self.vectors[self.trie.item_start :]


class Graphs:
    """The ONNX sessions of a bundle; safe to share between threads."""

    can_step = True
    """Whether `child_log_probs` scores the children of trie nodes, one level after the other."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Load `encoder.onnx`, `decoder.onnx`, `step.onnx` and `item_encoder.onnx`.

        Args:
            folder: of the bundle.
            threads: that one call may use. ONNX Runtime would take the host's core count, which
                in a container is not what it may use.

        Raises:
            BundleError: a file is not a graph that this ONNX Runtime can run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Errors come as exceptions; ONNX Runtime's own lines hold a graph's names as they are.
        options.log_severity_level = 4
        self._sessions = {name: _session(folder / f"{name}.onnx", options) for name in GRAPHS}

    def verify_inputs(self, *, levels: int, width: int) -> None:
        """Check that the graphs take what this module feeds them.

        Args:
            levels: L of the bundle.
            width: D of the bundle.

        Raises:
            BundleError: a graph has other inputs, or is one of another bundle.
        """
        wanted = self.inputs(levels)
        columns = {"items": width, "h": width, "vectors": width, "codes": levels}
        columns["hidden"] = 2 * width
        for graph, session in self._sessions.items():
            inputs = {each.name: each.shape for each in session.get_inputs()}
            if inputs.keys() != wanted[graph]:
                message = f"{graph}.onnx takes {sorted(inputs)} instead of {sorted(wanted[graph])}"
                raise BundleError(message)
            for name in inputs.keys() & columns.keys():
                if inputs[name][-1] != columns[name]:
                    message = (
                        f"{graph}.onnx takes {name} with {inputs[name][-1]} columns but the "
                        f"manifest says {columns[name]}: parts of two bundles"
                    )
                    raise BundleError(message)

    def inputs(self, levels: int) -> dict[str, set[str]]:
        """The names of what each graph takes, for semantic IDs of `levels` codes."""
        slots = {f"slots_{depth}" for depth in range(levels + 1)}
        return {
            "encoder": {"items"},
            "decoder": _TREE | slots | {"h", "hidden", "hidden_rows", "alive", "beams"},
            "step": _TREE | {"h", "nodes", "depth", "slots"},
            "item_encoder": {"text", "codes"},
        }

    def run(self, graph: str, feeds: dict[str, AnyArray]) -> list[AnyArray]:
        """The outputs of one graph, in their exported order."""
        outputs: list[AnyArray] = self._sessions[graph].run(None, feeds)
        return outputs

    def encode(self, items: FloatArray) -> FloatArray:
        """Vectors of a history's items [T >= 1, D], oldest first -> h [D], float16-rounded.

        Rounding happens here, in every case, so that an h that was stored as float16 gives the
        same answer as a fresh one.
        """
        (h,) = self._sessions["encoder"].run(None, {"items": items})
        rounded: FloatArray = h.astype(np.float16).astype(np.float32)
        return rounded

    def search(self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int) -> BeamResult:
        """The `width` most probable legal items: the whole beam search in one call.

        Args:
            h: encoded history [D].
            tree: trie, vectors, biases and what is known of the nodes' queries.
            counts: legal items below each node, int32 [M].
            width: beams kept after each level.

        Raises:
            ValueError: nothing is known of the nodes' queries.
        """
        if tree.hidden is None:
            message = "decoder.onnx reads `hidden` of the tree, which is None: see NodeHidden.build"
            raise ValueError(message)
        feeds = _tree_feeds(tree) | {
            "h": h,
            "hidden": tree.hidden.table,
            "hidden_rows": tree.hidden.rows,
            "alive": counts,
            "beams": np.arange(width),
        }
        feeds |= {f"slots_{depth}": np.arange(size) for depth, size in enumerate(_places(tree))}
        nodes, log_probs, pruned = self._sessions["decoder"].run(None, feeds)
        reached = np.isfinite(log_probs[:, 0])
        leaves = nodes[reached] - tree.trie.item_start
        return BeamResult(leaves, log_probs[reached], float(pruned.max()))

    def child_log_probs(
        self, h: FloatArray, nodes: IntArray, depth: int, tree: SearchTree
    ) -> FloatArray:
        """One level of the search, as `model.beam_search.StepDecoder` describes it."""
        feeds = _tree_feeds(tree) | {
            "h": h,
            "nodes": np.asarray(nodes, dtype=np.int64),
            "depth": np.array([depth]),
            "slots": np.arange(tree.trie.branching[depth]),
        }
        (log_probs,) = self._sessions["step"].run(None, feeds)
        return np.asarray(log_probs, dtype=np.float32)

    def item_vectors(self, text: FloatArray, codes: IntArray) -> FloatArray:
        """Vectors [N, D] of items known by text features [N, E] and codes [N, L] alone."""
        feeds = {"text": text, "codes": np.asarray(codes, dtype=np.int64)}
        (vectors,) = self._sessions["item_encoder"].run(None, feeds)
        return np.asarray(vectors, dtype=np.float32)


@dataclass(frozen=True)
class GraphStepDecoder:
    """`step.onnx` over one tree, in the form that `beam_search` drives."""

    graphs: Graphs
    tree: SearchTree

    def child_log_probs(self, h: FloatArray, nodes: IntArray, depth: int) -> FloatArray:
        """See `model.beam_search.StepDecoder`."""
        return self.graphs.child_log_probs(h, nodes, depth, self.tree)


class TextGraph:
    """The exported sentence encoder."""

    def __init__(self, path: Path) -> None:
        """Load the graph.

        Raises:
            BundleError: the file is not a graph that this ONNX Runtime can run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # by default as many as the host has, beside all requests
        self._session = _session(path, options)

    def encode(self, ids: IntArray, mask: IntArray) -> FloatArray:
        """Unit vectors [N, E] of token ids and their mask, both [N, T]."""
        feeds = {"ids": ids.astype(np.int64), "mask": mask.astype(np.int64)}
        (vectors,) = self._session.run(None, feeds)
        return np.asarray(vectors, dtype=np.float32)


def _tree_feeds(tree: SearchTree) -> dict[str, AnyArray]:
    return {
        "child_start": tree.trie.child_start,
        "vectors": tree.vectors,
        "biases": tree.biases,
    }


def _places(tree: SearchTree) -> Iterator[int]:
    """How many places for children each depth needs: at depth 0 as many as there are."""
    children, *below = tree.trie.branching
    yield children
    for most in below:
        yield -(-most // BLOCK) * BLOCK


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exception types share no base but Exception
        message = f"{path.name} cannot be run: {error}"
        raise BundleError(message) from error
