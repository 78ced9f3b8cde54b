"""The graphs of a diffusion bundle: Diffusion Beam Search behind the same functions as any other.

Shapes: W beams, L levels, K codes of the largest level, C items of a bucket, D width.
"""

import copy
from pathlib import Path

import numpy as np

from model.beam_search import BeamResult
from model.decoder import Graphs, SearchTree
from model.diffusion_search import (
    CodeTable,
    DiffusionSearch,
    Unmasking,
    complete,
    largest_range,
)
from model.evidence import ItemEvidence
from model.types import AnyArray, FloatArray, IntArray


class DiffusionGraphs(Graphs):
    """The ONNX sessions of a diffusion bundle and the codes of its items; safe to share."""

    can_step = False

    def __init__(
        self, folder: Path, *, threads: int, table: CodeTable, unmasking: Unmasking
    ) -> None:
        """Load the graphs; see `Graphs`.

        Args:
            folder: of the bundle.
            threads: that one call may use.
            table: what is known of the codes.
            unmasking: the way that the bundle searches.
        """
        super().__init__(folder, threads=threads)
        self.table = table
        self.unmasking = unmasking

    def by(self, unmasking: Unmasking) -> "DiffusionGraphs":
        """The same graphs searching another way, with as many ordered levels."""
        other = copy.copy(self)
        other.unmasking = unmasking
        return other

    def over(self, table: CodeTable) -> "DiffusionGraphs":
        """The same graphs over other items."""
        other = copy.copy(self)
        other.table = table
        return other

    def inputs(self, levels: int) -> dict[str, set[str]]:
        """See `Graphs.inputs`."""
        ordered = self.unmasking.ordered_levels
        tree, codes = {"vectors", "biases"}, {"code_vectors", "code_biases"}
        slots = {f"slots_{depth}" for depth in range(ordered)} | {"slots_range", "slots_items"}
        sizes = {"openings", "beams", "pool", "apart"} | slots
        items = {"child_start", "alive", "codes", "first_of_bucket"}
        known = {"evidence_leaves", "evidence", "evidence_weights"}
        return super().inputs(levels) | {
            "decoder": {"h"} | tree | codes | sizes | items | known,
            "step": {"h", "partly", "bucket_nodes"} | tree | codes,
        }

    def search(self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int) -> BeamResult:
        """`width` probable legal items; see `Graphs.search`."""
        levels = tree.trie.levels
        return complete(
            self._search(h, tree, counts, width, self.unmasking),
            lambda: self._search(h, tree, counts, width, self.unmasking.in_order(levels)),
            min(width, int(counts[0])),
        )

    def _search(
        self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int, way: Unmasking
    ) -> BeamResult:
        levels, ordered = tree.trie.levels, self.unmasking.ordered_levels
        branching, evidence = tree.trie.branching, ItemEvidence.of(tree.evidence)
        slots: dict[str, AnyArray]
        slots = {f"slots_{depth}": np.arange(branching[depth]) for depth in range(ordered)}
        slots["slots_range"] = np.arange(largest_range(tree.trie, ordered))
        slots["slots_items"] = np.arange(branching[levels])
        feeds: dict[str, AnyArray] = slots | {
            "h": h,
            "child_start": tree.trie.child_start,
            "vectors": tree.vectors,
            "biases": tree.biases,
            "alive": counts,
            "codes": self.table.codes,
            "first_of_bucket": self.table.first_of_bucket,
            "code_vectors": self.table.vectors,
            "code_biases": self.table.biases,
            "evidence_leaves": evidence.leaves,
            "evidence": evidence.amounts,
            "evidence_weights": self.table.evidence_weights,
            "openings": way.openings(levels),
            "beams": np.arange(width),
            "pool": np.arange(width * levels),
            "apart": np.array([way.diversity], np.float32),
        }
        leaves, log_probs = self.run("decoder", feeds)
        reached = np.isfinite(log_probs)
        return BeamResult(leaves[reached], log_probs[reached, None], None)


class GraphMaskedDecoder:
    """`step.onnx` over one catalogue, in the form that `diffusion_search` drives."""

    def __init__(self, graphs: DiffusionGraphs, tree: SearchTree) -> None:
        self._graphs = graphs
        self._tree = tree

    def search(self) -> DiffusionSearch:
        """The readable search over the same catalogue."""
        table, evidence = self._graphs.table, ItemEvidence.of(self._tree.evidence)
        return DiffusionSearch(self, table.codes, evidence, table.evidence_weights)

    def code_logits(self, h: FloatArray, codes: IntArray) -> FloatArray:
        """See `model.diffusion_search.MaskedDecoder`."""
        logits: FloatArray = self._step(h, codes, np.zeros((len(codes), 1), np.int64))[0]
        return logits

    def item_logits(self, h: FloatArray, codes: IntArray, leaves: IntArray) -> FloatArray:
        """See `model.diffusion_search.MaskedDecoder`."""
        logits: FloatArray = self._step(h, codes, leaves)[1]
        return logits

    def _step(self, h: FloatArray, codes: IntArray, leaves: IntArray) -> list[AnyArray]:
        feeds: dict[str, AnyArray] = {
            "h": h,
            "partly": np.asarray(codes, np.int64),
            "bucket_nodes": np.asarray(leaves, np.int64) + self._tree.trie.item_start,
            "vectors": self._tree.vectors,
            "biases": self._tree.biases,
            "code_vectors": self._graphs.table.vectors,
            "code_biases": self._graphs.table.biases,
        }
        return self._graphs.run("step", feeds)
