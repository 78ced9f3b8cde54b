"""Do the exported graphs compute what PyTorch and the NumPy reference compute?

Checked on the catalogue of the bundle and on small random ones that the export never saw, down to
a single item and to fewer children than beams, for several beam widths and history lengths.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from model.availability import legal_below
from model.beam_search import BeamResult, beam_search
from model.bundle import Bundle
from model.decoder import Graphs, GraphStepDecoder, SearchTree
from model.diffusion_decoder import DiffusionGraphs, GraphMaskedDecoder
from model.diffusion_search import MASKED
from model.errors import ExportError
from model.node_hidden import NodeHidden
from model.training.diffusion_network import DiffusionNetwork, code_logits
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
    if isinstance(network, DiffusionNetwork):
        _check_diffusion(network, bundle, generator)
        return
    for tree in (bundle.tree, *unseen_trees(bundle, generator)):
        everything = np.ones(tree.trie.item_count, dtype=bool)
        half = generator.random(tree.trie.item_count) < 0.5
        for legal in (everything, half):
            counts = legal_below(tree.trie, legal)
            h = generator.normal(size=(tree.vectors.shape[1],)).astype(np.float32)
            for width in WIDTHS:
                check_search(network, bundle.graphs, tree, h, counts, width)


def _check_diffusion(
    network: DiffusionNetwork, bundle: Bundle, generator: np.random.Generator
) -> None:
    """Compare Diffusion Beam Search with the NumPy reference, and its steps with PyTorch.

    Raises:
        ExportError: they differ, or the bundle's graphs are not those of diffusion.
    """
    graphs = bundle.graphs
    if not isinstance(graphs, DiffusionGraphs):  # pragma: no cover - export writes both together
        message = "the manifest does not say that the decoder is a diffusion one: export again"
        raise ExportError(message)
    table = graphs.table
    _check_steps(network, graphs, bundle.tree, generator)
    catalogues = [(bundle.tree, table.codes), *unseen_catalogues(bundle, generator)]
    for tree, codes in catalogues:
        over = graphs.over(replace(table, codes=codes))
        for share, width, diversity in ((1.0, 1, False), (0.5, 10, True), (0.5, 50, False)):
            legal = generator.random(len(codes)) < share
            h = generator.normal(size=(tree.vectors.shape[1],)).astype(np.float32)
            way = replace(graphs.unmasking, diversity=diversity)
            known = replace(tree, evidence=_some_evidence(len(codes), generator))
            found = over.by(way).search(h, known, legal_below(tree.trie, legal), width)
            reference = GraphMaskedDecoder(over, known).search().search(h, legal, width, way)
            what = f"decoder.onnx and the NumPy reference, width {width}, {len(codes)} items"
            compare(what, found, reference)


def _some_evidence(items: int, generator: np.random.Generator) -> FloatArray:
    """As a history might bring: of up to a fifth of the items, of all magnitudes [N]."""
    known = generator.random(items) < 0.2 * generator.integers(2)
    evidence: FloatArray = (known * generator.exponential(0.1, items)).astype(np.float32)
    return evidence


@torch.no_grad()
def _check_steps(
    network: DiffusionNetwork,
    graphs: DiffusionGraphs,
    tree: SearchTree,
    generator: np.random.Generator,
) -> None:
    codes = graphs.table.codes[generator.integers(tree.trie.item_count, size=20)]
    partly = np.where(generator.random(codes.shape) < 0.5, MASKED, codes)
    h = generator.normal(size=(tree.vectors.shape[1],)).astype(np.float32)
    known = torch.tensor(graphs.table.vectors), torch.tensor(graphs.table.biases)
    table = network.denoiser.table(*known)
    queries = network.denoiser(torch.tensor(h).unsqueeze(0), torch.tensor(partly), table)
    decoder = GraphMaskedDecoder(graphs, tree)
    leaves = np.zeros((len(partly), 1), np.int64)
    item = queries[:, -1].numpy() @ tree.item_vectors[0] + tree.biases[tree.trie.item_start]
    pairs: dict[str, tuple[FloatArray, AnyArray]] = {
        "codes": (decoder.code_logits(h, partly), code_logits(queries, table).numpy()),
        "items": (decoder.item_logits(h, partly, leaves)[:, 0], item),
    }
    for name, (found, expected) in pairs.items():
        worst = float(np.abs(found - expected).max())
        if not worst <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            message = f"step.onnx and PyTorch differ by {worst:.2e} in the logits of {name}"
            raise ExportError(message)


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
        compare(
            f"decoder.onnx and {name}, width {width}, {tree.trie.item_count} items", found, other
        )


def compare(what: str, found: BeamResult, other: BeamResult) -> None:
    """Check that two searches found the same, ties aside.

    Raises:
        ExportError: they did not; the message begins with `what`.
    """
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


def unseen_trees(bundle: Bundle, generator: np.random.Generator) -> Iterator[SearchTree]:
    """Small random catalogues of the bundle's depth and width."""
    for tree, _ in unseen_catalogues(bundle, generator):
        yield tree


def unseen_catalogues(
    bundle: Bundle, generator: np.random.Generator
) -> Iterator[tuple[SearchTree, AnyArray]]:
    """The same with the codes of their items [N, L], leaf order."""
    levels, width = bundle.tree.trie.levels, bundle.manifest.width
    most = max(level.codes for level in bundle.manifest.levels)
    for items in CATALOGUE_SIZES:
        codes = generator.integers(min(items, 9, most), size=(items, levels))
        trie, order = Trie.build(codes)
        vectors = generator.normal(scale=0.3, size=(trie.node_count, width))
        biases = generator.normal(size=trie.node_count)
        tree = SearchTree(trie, vectors.astype(np.float32), biases.astype(np.float32))
        known = bundle.tree.hidden
        hidden = known and NodeHidden.build(trie, tree.vectors, known.weights)
        yield replace(tree, hidden=hidden), codes[order]
