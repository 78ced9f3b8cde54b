"""The tensor search finds what the NumPy search finds."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.availability import legal_below
from model.diffusion_search import (
    DiffusionSearch,
    Unmasking,
    diversity_penalty,
    first_of_bucket,
    largest_range,
)
from model.evidence import ItemEvidence, log_evidence
from model.training.diffusion_graph import DiffusionDecoderGraph, DiffusionStepGraph
from model.training.diffusion_network import DiffusionNetwork
from model.trie import Trie
from model.types import AnyArray, FloatArray, IntArray
from tests.model.some_evidence import some_evidence
from tests.model.training.small_network import small_diffusion_network


class TorchDenoiser:
    """Partly unmasked IDs by the network, as the NumPy search wants them."""

    def __init__(self, network: DiffusionNetwork, evidence: FloatArray) -> None:
        """Read evidence [N]; the biases of items have it, as those of a request do."""
        items = network.item_vectors()
        self.step = DiffusionStepGraph(network)
        self.table, self.items = network.code_table(items), len(items)
        tree, self.evidence = network.tree(items), ItemEvidence.of(evidence)
        biases = tree.biases.detach().clone()
        self.weights = np.array(network.evidence_weights(), np.float32)
        biases[-len(items) :] += torch.from_numpy(self.weights[-2] * log_evidence(evidence))
        self.tree = replace(tree, biases=biases)

    def search(self, codes: IntArray) -> DiffusionSearch:
        levels = codes.shape[1]
        return DiffusionSearch(self, codes, self.evidence, self.weights[:levels])

    def code_logits(self, h: FloatArray, codes: IntArray) -> FloatArray:
        return self._run(h, codes, np.zeros((len(codes), 1), np.int64))[0]

    def item_logits(self, h: FloatArray, codes: IntArray, leaves: IntArray) -> FloatArray:
        return self._run(h, codes, leaves)[1]

    def _run(self, h: FloatArray, codes: IntArray, leaves: IntArray) -> list[FloatArray]:
        tree, table = self.tree, self.table
        nodes = torch.from_numpy(leaves) + len(tree.biases) - self.items
        both = self.step(
            torch.from_numpy(h),
            torch.from_numpy(codes),
            nodes,
            tree.vectors,
            tree.biases,
            table.vectors,
            table.biases,
        )
        return [each.numpy() for each in both]


def tensor_search(
    network: DiffusionNetwork,
    trie: Trie,
    asked: tuple[FloatArray, FloatArray],
    counts: AnyArray,
    way: Unmasking,
    width: int,
) -> tuple[IntArray, FloatArray]:
    """One run of the graph as it is exported, without the second run where items are missing.

    `asked` are h [D] and the evidence of every item [N].
    """
    h, evidence = asked
    levels, steps = trie.levels, TorchDenoiser(network, evidence)
    first = first_of_bucket(network.codes.numpy())
    sizes = [*trie.branching[: network.ordered_levels], largest_range(trie, network.ordered_levels)]
    slots = [torch.arange(size) for size in (*sizes, trie.branching[levels])]
    leaves, totals = DiffusionDecoderGraph(network)(
        torch.from_numpy(h),
        steps.tree.child_start,
        steps.tree.vectors,
        steps.tree.biases,
        torch.from_numpy(counts),
        network.codes,
        torch.from_numpy(first),
        steps.table.vectors,
        steps.table.biases,
        torch.from_numpy(steps.evidence.leaves),
        torch.from_numpy(steps.evidence.amounts),
        torch.from_numpy(steps.weights[:levels]),
        torch.from_numpy(way.openings(levels)),
        torch.arange(width),
        torch.arange(width * levels),
        torch.tensor([float(way.diversity)]),
        *slots,
    )
    reached = torch.isfinite(totals)
    return leaves[reached].numpy(), totals[reached].numpy()


@settings(max_examples=60, deadline=None)
@given(
    items=st.integers(1, 40),
    codebooks=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    width=st.integers(1, 30),
    share=st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    in_order=st.booleans(),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_it_finds_what_the_numpy_search_finds(
    items: int,
    codebooks: tuple[int, ...],
    width: int,
    share: float,
    in_order: bool,
    seed: int,
) -> None:
    """Without the penalty: which of two equal beams it keeps apart is left to PyTorch's top k.

    The exported graph breaks ties as NumPy does, and is compared in test_diffusion_decoder.
    """
    network, trie = small_diffusion_network(items, codebooks, seed=seed)
    generator = np.random.default_rng(seed)
    legal = generator.random(items) < share
    h = generator.normal(size=8).astype(np.float32)
    way = Unmasking(network.ordered_levels)
    way = way.in_order(trie.levels) if in_order else way

    evidence = some_evidence(items, generator)

    search = TorchDenoiser(network, evidence).search(network.codes.numpy())
    expected = search._search(h, legal, width, way)
    counts = legal_below(trie, legal)
    leaves, totals = tensor_search(network, trie, (h, evidence), counts, way, width)

    assert leaves.tolist() == expected.leaves.tolist()
    np.testing.assert_allclose(totals, expected.totals(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_penalty_is_that_of_the_numpy_search() -> None:
    network, _ = small_diffusion_network()
    graph = DiffusionDecoderGraph(network)
    states = np.random.default_rng(0).integers(-1, 2, size=(30, 3))

    for leaders in (1, 10):
        found = graph._penalty(torch.from_numpy(states), torch.arange(leaders))
        expected = diversity_penalty(states[:, network.ordered_levels :], leaders)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
        assert (expected < 0).any()
