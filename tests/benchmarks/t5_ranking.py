"""Where a T5's beam search over real items ranks each user's next item, seen items left out."""

from collections.abc import Iterator

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from model.availability import legal_below
from model.training.evaluation.rankings import Rankings
from model.training.histories import HeldOut
from model.types import IntArray
from tests.benchmarks.t5 import StaticSearch
from tests.benchmarks.t5_data import HISTORY, FlatData

BEAMS = 50
USERS, TOKENS = 32, 1_000
"""Users, and tokens of their histories with padding, in one search: keys and values of the tokens
are held once per beam, some 600 MB in all."""


def rank(search: StaticSearch, data: FlatData, task: HeldOut, progress: Progress) -> Rankings:
    """Rank each user's target among the items that the search reaches.

    Args:
        search: of a model in evaluation mode.
        data: the search's catalogue.
        task: who is asked, in leaves. A user without a history fails.
    """
    trie, rankings = data.trie, Rankings(len(task.users))
    bar = progress.add_task("beam search", total=len(task.users))
    below = legal_below(trie, np.ones(trie.item_count, dtype=bool))
    for users in _batches(task, data.tokens.items.shape[1]):
        tokens, real = data.tokens.batch([task.inputs[user][-HISTORY:] for user in users])
        closed = torch.zeros(len(users), trie.node_count, dtype=torch.bool)
        for row, user in enumerate(users):
            nodes, seen = trie.above(np.unique(task.inputs[user]))
            closed[row, torch.from_numpy(nodes[seen == below[nodes]])] = True
        found = search(tokens, BEAMS, real=real, closed=closed)
        for user, leaves in zip(users, _leaves(found, trie.depth_start[trie.levels]), strict=True):
            rankings.put_list(user, leaves, int(task.targets[user]))
        progress.advance(bar, len(users))
    progress.remove_task(bar)
    return rankings


def _batches(task: HeldOut, levels: int) -> Iterator[list[int]]:
    """Users whose histories are of about one length, shortest first."""
    lengths = np.array([min(len(history), HISTORY) for history in task.inputs])
    batch: list[int] = []
    for user in np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]:
        if len(batch) == USERS or (len(batch) + 1) * lengths[user] * levels > TOKENS:
            yield batch
            batch = []
        batch.append(int(user))
    if batch:
        yield batch


def _leaves(found: tuple[Tensor, Tensor], first: int) -> Iterator[IntArray]:
    """Leaves per user; a full semantic ID is one item here, and in the items' order."""
    for nodes, totals in zip(*found, strict=True):
        yield (nodes[torch.isfinite(totals)] - first).numpy()
