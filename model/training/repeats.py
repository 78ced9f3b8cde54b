"""Whether people come back to items they already had, learned from training events.

One number b is added to the log-odds of every item of a history:

    p(i | h, history)  proportional to  exp(h . v_i + beta e_i + b [i in history])

and fitted by maximum likelihood with the trained network as it is. With m the probability that the
item head gives to the whole history, the likelihood of "the next item is one of it" is that of a
coin with log-odds b + logit(m), so b is where as many repeats are expected as there were. Where
nobody repeats it is as low as `LOWEST`, and such items come last.
Shapes: P positions, D width, N items, T history length.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.training.evidence import batch_evidence
from model.training.network import Network
from model.training.training_set import TrainingSet, padded
from model.types import AnyArray, IntArray

LOWEST, HIGHEST = -20.0, 20.0
PROBABILITIES_AT_MOST = 250_000_000
"""Of the head, over all positions that are looked at: seconds."""
HISTORIES_AT_ONCE = 64


@torch.no_grad()
def repeat_bias(network: Network, data: TrainingSet) -> float:
    """The log-odds b that fits the repeats of a sample of the training windows."""
    order = np.random.default_rng(0).permutation(len(data.windows))
    items = network.item_vectors()
    allowed = max(1, PROBABILITIES_AT_MOST // len(items))
    log_odds: list[AnyArray] = []
    repeats: list[AnyArray] = []
    for start in range(0, len(order), HISTORIES_AT_ONCE):
        windows = [data.windows[row] for row in order[start : start + HISTORIES_AT_ONCE]]
        odds, repeated = _repeats(network, items, data, windows)
        log_odds.append(odds)
        repeats.append(repeated)
        if sum(map(len, log_odds)) >= allowed:
            break
    return fit(np.concatenate(log_odds), np.concatenate(repeats))


def _repeats(
    network: Network, items: Tensor, data: TrainingSet, windows: Sequence[IntArray]
) -> tuple[AnyArray, AnyArray]:
    """Log-odds [P] that the head gives to a repeat, and whether there was one [P]."""
    leaves, real = (tensor.to(items.device) for tensor in padded(windows))
    encoded = network.history_encoder(items[leaves[:, :-1]])
    history, position = real[:, 1:].nonzero(as_tuple=True)
    logits = encoded[history, position] @ items.T
    own = batch_evidence(network, data.transitions, windows, data.popularity)
    row, leaf, logs = own.items(network.depth_start[-2])
    logits[row, leaf] += network.head_evidence_weight * logs
    # Position t has read the items 0 .. t; one that is there twice counts once.
    read = leaves[history, :-1]
    after = torch.arange(read.shape[1], device=items.device) > position.unsqueeze(1)
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen.scatter_(1, read.masked_fill(after, 0), value=True)
    zero_read = ((read == 0) & ~after).any(1)
    seen[:, 0] = zero_read
    inside = torch.logsumexp(logits.masked_fill(~seen, -math.inf), dim=1)
    outside = torch.logsumexp(logits.masked_fill(seen, -math.inf), dim=1)
    targets = leaves[:, 1:][history, position]
    repeated = seen.gather(1, targets.unsqueeze(1))[:, 0]
    return (inside - outside).cpu().numpy().astype(np.float64), repeated.cpu().numpy()


def fit(log_odds: AnyArray, happened: AnyArray) -> float:
    """The b in [LOWEST, HIGHEST] at which sum sigmoid(b + log_odds) is the number that happened."""
    finite = np.clip(log_odds, -700.0, 700.0)
    wanted = float(np.sum(happened))
    low, high = LOWEST, HIGHEST
    for _ in range(60):
        middle = (low + high) / 2
        expected = float(np.sum(1 / (1 + np.exp(-np.clip(finite + middle, -700.0, 700.0)))))
        low, high = (middle, high) if expected < wanted else (low, middle)
    return round((low + high) / 2, 6)
