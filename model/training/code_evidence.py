"""Evidence of transitions at the codes of partly unmasked items, in training.

`model.diffusion_search` says the same of one beam. Shapes: P training positions, F levels that are
unmasked in any order, K codes of the largest level, R items with evidence at all positions.
"""

import torch
from torch import Tensor

from model.evidence import SCALE
from model.training.diffusion_network import DiffusionNetwork
from model.training.evidence import BatchEvidence


def code_evidence(
    network: DiffusionNetwork, evidence: BatchEvidence, targets: Tensor, masked: Tensor
) -> Tensor:
    """log(1 + e / scale) of the items that have each code and all unmasked ones [P, F, K].

    Args:
        network: knows the codes.
        evidence: at each position.
        targets: the items that are partly unmasked, leaves [P].
        masked: which of the codes beyond the ordered levels are masked [P, F].
    """
    ordered, largest = network.ordered_levels, network.code_biases.shape[1]
    position, leaf, _ = evidence.items(network.depth_start[-2])
    same = network.codes[leaf] == network.codes[targets[position]]
    agree = same[:, :ordered].all(1) & (same[:, ordered:] | masked[position]).all(1)
    codes, position = network.codes[leaf[agree], ordered:], position[agree]
    levels = torch.arange(masked.shape[1], device=masked.device)
    place = (position.unsqueeze(1) * len(levels) + levels) * largest + codes
    amounts = evidence.amounts[agree].unsqueeze(1).expand_as(place)
    sums = amounts.new_zeros(masked.numel() * largest)
    sums.index_add_(0, place.flatten(), amounts.flatten())
    return sums.div_(SCALE).log1p_().view(*masked.shape, largest)
