"""Do the exported graphs compute what PyTorch and the NumPy reference compute?

Checked on the catalogue of the bundle and on small random ones that the export never saw, down to
a single item and to fewer children than beams, for several beam widths and history lengths.
"""

from collections.abc import Iterator

import numpy as np
import torch

from model.availability import legal_below
from model.beam_search import BeamResult, beam_search
from model.bundle import Bundle
from model.decoder import Graphs, GraphStepDecoder, SearchTree
from model.errors import ExportError
from model.training.network import Network, TreeTensors
from model.training.search_graph import beam_search as tensor_beam_search
from model.trie import Trie
from model.types import AnyArray, FloatArray

TOLERANCE = 1e-4
"""Largest allowed difference of two log-probabilities."""

WIDTHS = (1, 10, 50)
CATALOGUE_SIZES = (1, 2, 7, 300)


def check_parity(network: Network, bundle: Bundle) -> None:
    """Compare `bundle`'s graphs with `network` and with the NumPy search.

    Raises:
        ExportError: they differ, with what and by how much.
    """
    generator = np.random.default_rng(0)
    _check_encoder(network, bundle, generator)
    for tree in (bundle.tree, *_unseen_trees(bundle, generator)):
        everything = np.ones(tree.trie.item_count, dtype=bool)
        half = generator.random(tree.trie.item_count) < 0.5
        for legal in (everything, half):
            counts = legal_below(tree.trie, legal)
            h = generator.normal(size=(tree.vectors.shape[1],)).astype(np.float32)
            for width in WIDTHS:
                check_search(network, bundle.graphs, tree, h, counts, width)


def check_search(
    network: Network, graphs: Graphs, tree: SearchTree, h: FloatArray, counts: AnyArray, width: int
) -> None:
    """Run one search three ways.

    Raises:
        ExportError: two of them differ.
    """
    found = graphs.search(h, tree, counts, width)
    reference = beam_search(GraphStepDecoder(graphs, tree), tree.trie, h, counts, width)
    trained = _torch_search(network, tree, h, counts, width)
    for name, other in (("the NumPy reference", reference), ("PyTorch", trained)):
        _compare(
            f"decoder.onnx and {name}, width {width}, {tree.trie.item_count} items", found, other
        )


def _compare(what: str, found: BeamResult, other: BeamResult) -> None:
    if found.log_probs.shape != other.log_probs.shape:
        message = f"{what}: {len(found.leaves)} against {len(other.leaves)} results"
        raise ExportError(message)
    worst = float(np.abs(found.log_probs - other.log_probs).max(initial=0.0))
    # Where items differ, their totals must be equal: then they are a tie.
    moved = found.leaves != other.leaves
    gap = float(np.abs(found.totals() - other.totals())[moved].max(initial=0.0))
    # Written so that NaN, which compares false with everything, is a difference.
    if not gap <= TOLERANCE or not (worst <= TOLERANCE or moved.any()):
        message = f"{what}: log-probabilities differ by {max(gap, worst):.2e} (> {TOLERANCE:.0e})"
        raise ExportError(message)


@torch.no_grad()
def _torch_search(
    network: Network, tree: SearchTree, h: FloatArray, counts: AnyArray, width: int
) -> BeamResult:
    tensors = TreeTensors(
        torch.tensor(tree.trie.child_start.astype(np.int64)),
        torch.tensor(tree.vectors),
        torch.tensor(tree.biases),
    )
    sizes = tuple(torch.arange(size) for size in (width, *tree.trie.branching))
    alive = torch.tensor(counts)
    beams = tensor_beam_search(network.generator, torch.tensor(h)[None], tensors, alive, sizes)
    log_probs = beams.log_probs[0].numpy()
    reached = np.isfinite(log_probs[:, 0])
    leaves = beams.nodes[0].numpy()[reached] - tree.trie.item_start
    return BeamResult(leaves, log_probs[reached], float(beams.pruned.max()))


@torch.no_grad()
def _check_encoder(network: Network, bundle: Bundle, generator: np.random.Generator) -> None:
    items = bundle.tree.item_vectors
    for length in {1, 2, bundle.manifest.history_length}:
        history = items[generator.integers(len(items), size=length)]
        expected = network.history_encoder(torch.tensor(history)[None])[0, -1]
        expected = expected.numpy().astype(np.float16).astype(np.float32)
        worst = float(np.abs(bundle.graphs.encode(history) - expected).max())
        # Both are float16 numbers: a difference is one unit in the last place, at most.
        if not worst <= 2**-10 * max(1.0, float(np.abs(expected).max())):
            message = f"encoder.onnx and PyTorch differ by {worst:.2e} at history length {length}"
            raise ExportError(message)
    text = generator.normal(size=(2, len(network.text_basis))).astype(np.float32)
    sizes = network.shape.codebook_sizes
    codes = np.stack([generator.integers(size, size=2) for size in sizes], axis=1)
    described = network.item_encoder.describe(
        torch.tensor(text) @ network.text_basis, torch.tensor(codes)
    )
    worst = float(np.abs(bundle.graphs.item_vectors(text, codes) - described.numpy()).max())
    if not worst <= TOLERANCE:
        message = f"item_encoder.onnx and PyTorch differ by {worst:.2e}"
        raise ExportError(message)


def _unseen_trees(bundle: Bundle, generator: np.random.Generator) -> Iterator[SearchTree]:
    """Small random catalogues of the bundle's depth and width."""
    levels, width = bundle.tree.trie.levels, bundle.manifest.width
    for items in CATALOGUE_SIZES:
        codes = generator.integers(min(items, 9), size=(items, levels))
        trie, _ = Trie.build(codes)
        vectors = generator.normal(scale=0.3, size=(trie.node_count, width))
        biases = generator.normal(size=trie.node_count)
        yield SearchTree(trie, vectors.astype(np.float32), biases.astype(np.float32))
