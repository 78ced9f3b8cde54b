"""Networks over random catalogues, small enough to compute everything by brute force."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.training.diffusion_network import DiffusionNetwork
from model.training.evidence import BatchEvidence
from model.training.network import Network, NetworkShape
from model.trie import Trie


def small_network(
    items: int = 40, codebooks: tuple[int, ...] = (3, 4, 2), *, seed: int = 0, **changes: Any
) -> tuple[Network, Trie]:
    """A network in evaluation mode whose parameters are all random, and its trie.

    Item 0 was never trained on. Some semantic IDs are shared, some nodes have one child. `changes`
    are of its shape.
    """
    (shape, _, *tensors), trie = small_parts(items, codebooks, seed=seed)
    network = Network(replace(shape, **changes), trie, *tensors)
    _randomize(network)
    return network.eval(), trie


def small_diffusion_network(
    items: int = 40, codebooks: tuple[int, ...] = (3, 4, 2), *, seed: int = 0
) -> tuple[DiffusionNetwork, Trie]:
    """The same with a denoiser."""
    parts, trie = small_parts(items, codebooks, seed=seed)
    network = DiffusionNetwork(*parts)
    _randomize(network)
    return network.eval(), trie


def small_parts(
    items: int, codebooks: tuple[int, ...], *, seed: int
) -> tuple[tuple[NetworkShape, Trie, Tensor, Tensor, Tensor], Trie]:
    """What a network is made of, and its trie once more."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    codes = np.stack([generator.integers(size, size=items) for size in codebooks], axis=1)
    trie, order = Trie.build(codes)
    shape = NetworkShape(
        width=8,
        blocks=2,
        heads=2,
        history_length=6,
        text_width=5,
        codebook_sizes=codebooks,
        dropout=0.0,
        input_dropout=0.0,
        id_dropout=0.5,
    )
    text = torch.randn(items, 7)
    trained = torch.ones(items)
    trained[0] = 0
    return (shape, trie, text, torch.from_numpy(codes[order]), trained), trie


def small_evidence(network: Network, positions: int, *, seed: int = 0) -> BatchEvidence:
    """Evidence for some items at each of `positions`."""
    generator = np.random.default_rng(seed)
    places = positions * len(network.ancestors)
    keys = np.flatnonzero(generator.random(places) < 0.2)
    return BatchEvidence.over(network, keys, generator.random(len(keys)))


def no_evidence(network: Network) -> BatchEvidence:
    """None at any position."""
    return BatchEvidence.over(network, np.empty(0, np.int64), np.empty(0))


def evidence_of_nodes(evidence: BatchEvidence, positions: int) -> Tensor:
    """The same as a table: the logarithm of the evidence of every node [P, M]."""
    table = torch.zeros(positions, evidence.nodes)
    for keys, logs in zip(evidence.keys, evidence.logs, strict=True):
        table[keys // evidence.nodes, keys % evidence.nodes] = logs
    return table


def _randomize(network: Network) -> None:
    with torch.no_grad():  # offsets start at zero and most weights near it: make all of them count
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
