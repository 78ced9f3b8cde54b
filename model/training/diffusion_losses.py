"""What a denoiser is trained to say: masked diffusion over the codes of the next item.

    1/r * sum over masked positions of -log p(code | unmasked codes, h)  -  log p(item | codes, h)

The share r of masked positions is drawn anew for every history and weighs the sum by 1/r (MDLM,
LLaDA, MindRec), which makes the expectation a bound of -log p(item | h), on the same scale as the
autoregressive generator's loss. Codes are masked as the search meets them: the category before
everything else is never the only thing masked. As the generator's, most of the loss can be to the
item head's opinion: what it gives to all items with a code, of those that have the unmasked codes.
The codes of exactly those items are normalised over, as in the search.

Shapes: P training positions, N items, S items that are scored, L levels, K codes of the largest
level, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.training.diffusion_network import CodeTensors, DiffusionNetwork, code_logits
from model.training.losses import (
    LOGITS_AT_ONCE,
    Positions,
    ScoredItems,
    choice_log_probs,
    item_head_loss,
    path_choices,
)
from model.training.network import ABSENT

TINY = 1e-30
"""The least a head may give to an item: zero would read as that the code does not occur."""


@dataclass(frozen=True)
class Masking:
    """How many codes are masked, and which come first."""

    ordered_levels: int
    """Leading levels that are unmasked before the others."""
    least_ratio: float = 0.0
    """Smallest share of masked codes; high values train the early steps of the search more."""

    def draw(self, positions: int, levels: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw which codes are masked, bool [P, L], and their share r [P]."""
        least = max(1, round(self.least_ratio * levels))
        masked_codes = torch.randint(least, levels + 1, (positions, 1), device=device)
        # The rank of each position in a random order that begins with the ordered levels.
        late = torch.rand(positions, levels, device=device) + 1
        late[:, : self.ordered_levels] = torch.linspace(0, 0.9, self.ordered_levels, device=device)
        rank = late.argsort(dim=1).argsort(dim=1)
        return rank >= levels - masked_codes, masked_codes[:, 0] / levels


@dataclass(frozen=True)
class Objective:
    """What of a history's next item is learned, and how."""

    masking: Masking
    distillation: float
    """Share of the denoiser's loss that is to the item head's opinion; the rest is to the target's
    codes."""
    label_smoothing: float = 0.0
    """What of the item head's targets is spread over all items."""


@torch.no_grad()
def head_opinion(
    h: Tensor, items: Tensor, codes: Tensor, scored: ScoredItems, partly: Tensor, largest: int
) -> Tensor:
    """What the item head gives to the codes of the items that have all unmasked codes [P, L, K].

    Not normalised; zero exactly where no such item has the code.

    Args:
        h: encoded histories [P, D].
        items: vectors of the scored items [S, D].
        codes: of the scored items [S, L].
        scored: their corrections.
        partly: unmasked codes [P, L], negative where masked.
        largest: K.
    """
    said = []
    step = max(1, LOGITS_AT_ONCE // len(items))
    for rows in (slice(at, at + step) for at in range(0, len(h), step)):
        # Items first: adding up whole rows of positions is several times faster than columns.
        shares = (items @ h[rows].T + scored.correction.unsqueeze(1)).softmax(dim=0)
        agree = torch.ones_like(shares, dtype=torch.bool)
        for level in range(codes.shape[1]):
            known = partly[rows, level]
            agree &= (codes[:, level : level + 1] == known) | (known < 0)
        shares = torch.where(agree, shares.clamp(min=TINY), 0.0)
        sums = [
            shares.new_zeros(largest, shares.shape[1]).index_add_(0, codes[:, level], shares).T
            for level in range(codes.shape[1])
        ]
        said.append(torch.stack(sums, dim=1))
    return torch.cat(said)


def denoiser_loss(
    network: DiffusionNetwork,
    h: Tensor,
    table: CodeTensors,
    targets: Tensor,
    opinion: tuple[Tensor, Tensor, Tensor],
    share: float,
) -> Tensor:
    """Mean loss of the masked codes.

    Args:
        network: holds the denoiser.
        h: encoded histories [P, D].
        table: vectors and biases of the codes.
        targets: leaves [P].
        opinion: masked [P, L], their share r [P], and `head_opinion` [P, L, K].
        share: of the loss that is to the head's opinion; the rest is to the target's codes.
    """
    masked, ratio, said = opinion
    codes = network.codes[targets]
    queries = network.denoiser(h, codes.masked_fill(masked, -1), table)
    logits = code_logits(queries, table).masked_fill(said == 0, ABSENT)
    log_probs = logits.log_softmax(dim=2)
    taught = said / said.sum(dim=2, keepdim=True)
    own = log_probs.gather(2, codes.unsqueeze(2))[:, :, 0]
    both = (1 - share) * own + share * (taught * log_probs.clamp(min=-60)).sum(dim=2)
    weighted = both.masked_fill(~masked, 0.0).sum(dim=1) / ratio
    return -weighted.mean()


def diffusion_losses(
    network: DiffusionNetwork,
    positions: Positions,
    items: Tensor,
    objective: Objective,
) -> tuple[Tensor, Tensor]:
    """The item head's and the denoiser's mean loss; arguments as above."""
    h, targets = positions.h, positions.targets
    table, share = network.code_table(items), objective.distillation
    choice = path_choices(network, targets, network.tree(items))[-1]
    head, taught = item_head_loss(network, positions, items, [choice], objective.label_smoothing)
    masked, ratio = objective.masking.draw(len(h), network.codes.shape[1], h.device)
    codes = network.codes[targets]
    scored = ScoredItems.draw(len(items), targets)
    vectors, own = items[scored.leaves], network.codes[scored.leaves]
    partly = codes.masked_fill(masked, -1)
    said = head_opinion(h, vectors, own, scored, partly, table.biases.shape[1])
    loss = denoiser_loss(network, h, table, targets, (masked, ratio, said), share)
    # The choice inside the bucket, where there is one.
    at = choice.position
    hidden = network.denoiser.hidden(h[at], codes[at], table)
    query = network.denoiser.queries(h[at], hidden, first=codes.shape[1])[:, 0]
    log_probs = choice_log_probs(query, choice, network.tree(items))
    chosen = (1 - share) * log_probs.gather(1, choice.place.unsqueeze(1)).sum()
    chosen = chosen + share * (taught[0] * log_probs.clamp(min=-60)).sum()
    return head, loss - chosen / len(h)
