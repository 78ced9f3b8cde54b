"""The denoiser's losses against plain formulas on a small catalogue."""

import math

import pytest
import torch
from torch import Tensor

from model.training.diffusion_losses import (
    Masking,
    Objective,
    denoiser_loss,
    diffusion_losses,
    head_opinion,
)
from model.training.diffusion_network import DiffusionNetwork, code_logits
from model.training.losses import Positions, ScoredItems
from tests.model.training.small_network import no_evidence, small_diffusion_network

CPU = torch.device("cpu")


def test_the_ratio_is_what_is_masked_and_the_category_is_masked_last() -> None:
    torch.manual_seed(0)
    masked, ratio = Masking(2).draw(4000, 5, CPU)

    assert torch.equal(masked.float().mean(1), ratio)
    # Coarse to fine: the second level is masked wherever the first one is, the others always then.
    assert not (masked[:, 0] & ~masked[:, 1]).any()
    assert masked[masked[:, 1]][:, 2:].all()
    shares = torch.bincount(masked.sum(1), minlength=6) / len(masked)
    torch.testing.assert_close(shares[1:], torch.full((5,), 0.2), atol=0.03, rtol=0)
    alone = masked[masked.sum(1) == 1].float().mean(0)  # any of the others, equally often
    torch.testing.assert_close(alone, torch.tensor([0, 0, 1, 1, 1]) / 3, atol=0.08, rtol=0)


def test_heavy_masking_leaves_the_light_out() -> None:
    masked, ratio = Masking(1, least_ratio=0.6).draw(500, 5, CPU)

    assert sorted(set(masked.sum(1).tolist())) == [3, 4, 5]
    assert ratio.min() == pytest.approx(0.6)


def test_the_heads_opinion_is_what_it_gives_to_items_that_agree() -> None:
    network, _ = small_diffusion_network()
    items, codes = network.item_vectors().detach(), network.codes
    h = torch.randn(5, 8)
    partly = codes[:5].clone()
    partly[0] = -1
    partly[1, 1:] = -1
    partly[2, 2] = -1

    said = head_opinion(h, items, codes, ScoredItems.draw(40, torch.arange(5)), partly, 4)

    probs = (h @ items.T).softmax(1)
    for row in range(5):
        for level in range(3):
            for code in range(4):
                agree = ((partly[row] == codes) | (partly[row] < 0)).all(1)
                wanted = probs[row, agree & (codes[:, level] == code)].sum()
                torch.testing.assert_close(said[row, level, code], wanted)


def plain_loss(network: DiffusionNetwork, h: Tensor, leaf: int, masked: Tensor) -> float:
    """-log p of the masked codes over what occurs, divided by their share, for one history."""
    table = network.code_table(network.item_vectors())
    own = network.codes[leaf]
    partly = own.masked_fill(masked, -1)
    logits = code_logits(network.denoiser(h[None], partly[None], table), table)[0]
    agree = network.codes[((partly == network.codes) | (partly < 0)).all(1)]
    total = 0.0
    for level in masked.nonzero()[:, 0].tolist():
        occurring = sorted(set(agree[:, level].tolist()))
        log_probs = logits[level, occurring].log_softmax(0)
        total -= float(log_probs[occurring.index(int(own[level]))])
    return total / float(masked.float().mean())


@torch.no_grad()
def test_the_loss_is_the_weighted_one_of_masked_codes_over_those_that_occur() -> None:
    network, _ = small_diffusion_network()
    items = network.item_vectors()
    targets = torch.tensor([3, 17, 30])
    h = torch.randn(3, 8)
    masked = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 1, 1]]).bool()
    partly = network.codes[targets].masked_fill(masked, -1)
    said = head_opinion(h, items, network.codes, ScoredItems.draw(40, targets), partly, 4)
    ratio = masked.float().mean(1)

    loss = denoiser_loss(network, h, network.code_table(items), targets, (masked, ratio, said), 0.0)

    plain = [plain_loss(network, h[row], int(targets[row]), masked[row]) for row in range(3)]
    assert float(loss) == pytest.approx(sum(plain) / 3, rel=1e-4)


def test_a_denoiser_learns_the_only_item_that_ever_comes() -> None:
    network, _ = small_diffusion_network()
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    h, targets = torch.randn(16, 8), torch.full((16,), 7)
    positions = Positions(h, targets, no_evidence(network))
    objective = Objective(Masking(1), distillation=0.3)
    torch.manual_seed(0)
    seen = []
    for _ in range(100):
        head, loss = diffusion_losses(network, positions, network.item_vectors(), objective)
        optimizer.zero_grad()
        (head + loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen.append(loss.item())

    assert math.isfinite(seen[-1])
    assert sum(seen[-5:]) < 0.3 * sum(seen[:5])
    for parameter in (network.code_offsets, network.denoiser.masks, network.denoiser.outer.weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
