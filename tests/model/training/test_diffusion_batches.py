"""The batched search finds what the NumPy search finds."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.diffusion_search import ANY_ORDER_ITEMS_MAX, Unmasking
from model.training.diffusion_batches import BatchSearch
from model.training.evidence import BatchEvidence
from tests.model.some_evidence import some_evidence
from tests.model.training.small_network import small_diffusion_network
from tests.model.training.test_diffusion_graph import TorchDenoiser


@settings(max_examples=60, deadline=None)
@given(
    items=st.integers(1, 40),
    codebooks=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    width=st.integers(1, 30),
    in_order=st.booleans(),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_it_finds_what_the_numpy_search_finds(
    items: int, codebooks: tuple[int, ...], width: int, in_order: bool, seed: int
) -> None:
    network, trie = small_diffusion_network(items, codebooks, seed=seed)
    assert items <= ANY_ORDER_ITEMS_MAX
    if in_order:
        network.ordered_levels = trie.levels
    generator = np.random.default_rng(seed)
    h = torch.from_numpy(generator.normal(size=(3, 8)).astype(np.float32))
    amounts = np.stack([some_evidence(items, generator) for _ in h])
    keys = np.flatnonzero(amounts)
    evidence = BatchEvidence.over(network, keys, amounts.flatten()[keys])

    tree = network.tree(network.item_vectors())
    found = BatchSearch(network, tree, width).search(h, evidence)

    way = Unmasking(network.ordered_levels)
    legal = np.ones(items, dtype=bool)
    for row, (leaves, totals) in enumerate(zip(*found, strict=True)):
        search = TorchDenoiser(network, amounts[row]).search(network.codes.numpy())
        expected = search._search(h[row].numpy(), legal, width, way)
        reached = torch.isfinite(totals)
        assert leaves[reached].tolist() == expected.leaves.tolist()
        np.testing.assert_allclose(totals[reached], expected.totals(), rtol=1e-4, atol=1e-4)
