"""The denoiser's losses against plain formulas on a small catalogue."""

from math import log1p

import pytest
import torch
from torch import Tensor

from model.training.code_evidence import code_evidence
from model.training.diffusion_losses import (
    Masked,
    Masking,
    Objective,
    denoiser_loss,
    diffusion_losses,
    head_opinion,
)
from model.training.diffusion_network import DiffusionNetwork, code_logits
from model.training.losses import Positions
from tests.model.training.small_network import (
    evidence_of_nodes,
    no_evidence,
    small_diffusion_network,
    small_evidence,
)

CPU = torch.device("cpu")


def test_the_ratio_is_what_is_masked_every_number_equally_often() -> None:
    torch.manual_seed(0)
    masked, ratio = Masking().draw(4000, 4, CPU)

    assert torch.equal(masked.float().mean(1), ratio)
    shares = torch.bincount(masked.sum(1), minlength=5) / len(masked)
    torch.testing.assert_close(
        shares, torch.tensor([0.0, 0.25, 0.25, 0.25, 0.25]), atol=0.03, rtol=0
    )
    alone = masked[masked.sum(1) == 1].float().mean(0)
    torch.testing.assert_close(alone, torch.full((4,), 0.25), atol=0.06, rtol=0)


def test_heavy_masking_leaves_the_light_out() -> None:
    masked, ratio = Masking(least_ratio=0.6).draw(500, 5, CPU)

    assert sorted(set(masked.sum(1).tolist())) == [3, 4, 5]
    assert ratio.min() == pytest.approx(0.6)


def test_the_heads_opinion_is_what_it_gives_to_items_that_agree() -> None:
    network, _ = small_diffusion_network()
    items, codes = network.item_vectors().detach(), network.codes
    h, targets = torch.randn(5, 8), torch.tensor([0, 9, 20, 21, 39])
    masked = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1]]).bool()

    evidence = small_evidence(network, 5)
    said = head_opinion(network, Positions(h, targets, evidence), items, masked)

    logs = evidence_of_nodes(evidence, 5)[:, network.depth_start[-2] :]
    assert logs.any()
    probs = (h @ items.T + network.head_evidence_weight.detach() * logs).softmax(1)
    for row, target in enumerate(targets.tolist()):
        known = torch.cat([torch.tensor([True]), ~masked[row]])
        agree = ((codes == codes[target]) | ~known).all(1)
        for level in range(2):
            for code in range(4):
                wanted = probs[row, agree & (codes[:, 1 + level] == code)].sum()
                # Relative to the category, whose items are all that can agree.
                whole = probs[row, codes[:, 0] == codes[target, 0]].sum()
                torch.testing.assert_close(said[row, level, code], wanted / whole)


def log_prob_of(
    network: DiffusionNetwork, h: Tensor, leaf: int, known: list[int], at: int, amounts: Tensor
) -> float:
    """log p(code of `leaf` at a position | its codes at the positions `known`) over what occurs.

    `amounts` is the evidence of every item [N].
    """
    table, own = network.code_table(network.item_vectors()), network.codes[leaf]
    partly = torch.full_like(own, -1)
    partly[known] = own[known]
    logits = code_logits(network.denoiser(h[None], partly[None], table), table)[0, at]
    agree = (network.codes[:, known] == own[known]).all(1)
    for code in range(len(logits)):
        has = agree & (network.codes[:, at] == code)
        logits[code] += network.denoiser.evidence_weights[at] * log1p(amounts[has].sum() / 0.02)
    occurring = sorted(set(network.codes[agree, at].tolist()))
    return float(logits[occurring].log_softmax(0)[occurring.index(int(own[at]))])


def item_log_prob(network: DiffusionNetwork, h: Tensor, leaf: int, amounts: Tensor) -> float:
    """log p(item | codes), given the evidence of every item [N]."""
    items = network.item_vectors()
    codes, tree = network.codes[leaf][None], network.tree(items)
    query = network.denoiser(h[None], codes, network.code_table(items))[0, -1]
    bucket = (network.codes == codes).all(1).nonzero()[:, 0]
    nodes = bucket + network.depth_start[-2]
    logits = tree.vectors[nodes] @ query + tree.biases[nodes]
    logits += network.denoiser.evidence_weights[-1] * (amounts[bucket] / 0.02).log1p()
    return float(logits.log_softmax(0)[bucket.tolist().index(leaf)])


@torch.no_grad()
def test_the_loss_of_masked_codes_is_weighted_and_over_those_that_occur() -> None:
    network, _ = small_diffusion_network()
    items = network.item_vectors()
    targets, h = torch.tensor([3, 17, 30]), torch.randn(3, 8)
    masked = torch.tensor([[1, 1], [1, 0], [0, 1]]).bool()
    said = head_opinion(network, Positions(h, targets, no_evidence(network)), items, masked)
    known = (h, network.codes[targets], network.code_table(items))
    evidence = small_evidence(network, 3)
    logs = code_evidence(network, evidence, targets, masked)

    asked = Masked(masked, masked.float().mean(1), said, logs)
    loss = denoiser_loss(network, known, asked, 0.0)

    plain = 0.0
    for row, leaf in enumerate(targets.tolist()):
        unmasked = [0, *(1 + (~masked[row]).nonzero()[:, 0]).tolist()]
        wanted = (1 + masked[row].nonzero()[:, 0]).tolist()
        amounts = evidence.item_amounts(3, network.depth_start[-2])[row]
        total = sum(log_prob_of(network, h[row], leaf, unmasked, at, amounts) for at in wanted)
        plain -= total / float(masked[row].float().mean()) / 3
    assert float(loss) == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("ordered", [1, 2, 3])
@torch.no_grad()
def test_all_parts_together_are_the_loss_of_the_items(ordered: int) -> None:
    network, _ = small_diffusion_network()
    network.ordered_levels = ordered
    targets, h = torch.arange(40), torch.randn(40, 8)
    everything = Objective(Masking(least_ratio=0.99), distillation=0.0)

    evidence = small_evidence(network, 40)
    positions = Positions(h, targets, evidence)
    head, loss = diffusion_losses(network, positions, network.item_vectors(), everything)

    amounts = evidence.item_amounts(40, network.depth_start[-2])
    logits = h @ network.item_vectors().T
    logits += network.head_evidence_weight * (amounts / 0.02).log1p()
    assert float(head) == pytest.approx(-float(logits.log_softmax(1).diag().mean()), rel=1e-4)
    plain = 0.0
    for leaf in range(40):
        plain -= item_log_prob(network, h[leaf], leaf, amounts[leaf])
        for depth in range(3):
            before = list(range(min(depth, ordered)))
            plain -= log_prob_of(network, h[leaf], leaf, before, depth, amounts[leaf])
    assert float(loss) == pytest.approx(plain / 40, rel=1e-4)


def test_a_denoiser_learns_the_only_item_that_ever_comes() -> None:
    network, _ = small_diffusion_network()
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    h, targets = torch.randn(16, 8), torch.full((16,), 7)
    positions = Positions(h, targets, small_evidence(network, 16))
    objective = Objective(Masking(), distillation=0.3)

    @torch.no_grad()
    def loss_without_dropout() -> float:
        network.eval()
        torch.manual_seed(0)  # the same masks before and after
        loss = diffusion_losses(network, positions, network.item_vectors(), objective)[1]
        network.train()
        return loss.item()

    before = loss_without_dropout()
    for _ in range(100):
        head, loss = diffusion_losses(network, positions, network.item_vectors(), objective)
        optimizer.zero_grad()
        (head + loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    assert loss_without_dropout() < 0.3 * before
    denoiser = network.denoiser
    for parameter in (network.code_offsets, denoiser.masks, denoiser.outer.weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    assert denoiser.evidence_weights.grad is not None
    assert (denoiser.evidence_weights.grad != 0).all()
