"""How the intent of synthetic users moves, and with which probability each item comes next.

The same distribution is drawn from and ranked for the oracle. Letters: U users, T events so far.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from model.training.synthesis.shop import (
    DEPARTMENT,
    LEAF,
    ROOT,
    SECTION,
    Numbers,
    Shop,
    Weights,
)
from model.types import BoolArray

SERIES = SECTION + 1
"""The narrowest stage of an intent, after the four rows of `Shop.nodes`."""
NOTHING = -1
"""Fills a history up to its width."""

_AHEAD = np.array([0.5, 0.3, 0.2])
"""How far a user goes along a series: one, two or three items on."""
_STAYS = 0.6
"""Probability of going on within the series."""
_FIRST_RELATED = 0.7
"""Probability of the first related leaf, for a user who moves on."""
_EXHAUSTED = 1e-9
"""A node of whose weight less than this share is unseen counts as seen entirely."""


@dataclass(frozen=True)
class NextItem:
    """The distribution of each user's next item, seen items excluded.

    Attributes:
        ahead: Items further along the series [U, 3].
        ahead_probability: Their probabilities [U, 3].
        node: Nodes from which an item may be drawn by its weight [U, 2].
        node_probability: Their probabilities [U, 2]; with `ahead_probability` they sum to 1.
        unseen_weight: Weight of what the user has not seen in each node [U, 2].
        seen: The user's items, ascending [U, T].
    """

    shop: Shop
    ahead: Numbers
    ahead_probability: Weights
    node: Numbers
    node_probability: Weights
    unseen_weight: Weights
    seen: Numbers

    @classmethod
    def of(cls, shop: Shop, stage: Numbers, history: Numbers) -> Self:
        """Return the distribution for users at `stage` [U] with `history` [U, T], T >= 1."""
        last = history[:, -1]
        is_series = stage == SERIES
        step = np.arange(1, len(_AHEAD) + 1)
        start, size = shop.series_start[last], shop.series_size[last]
        ahead = start[:, None] + ((last - start)[:, None] + step) % size[:, None]
        is_new = ~(ahead[:, :, None] == history[:, None, :]).any(axis=2)
        open_ahead = np.where(is_new & is_series[:, None], _AHEAD, 0.0)
        total = open_ahead.sum(axis=1, keepdims=True)
        stays = np.where(total > 0, _STAYS, 0.0)
        ahead_probability = stays * open_ahead / np.where(total > 0, total, 1.0)

        level = np.where(is_series, LEAF, stage)
        own = shop.nodes[level, last]
        related = shop.related[shop.nodes[LEAF, last]]
        node = np.where(is_series[:, None], related, own[:, None])
        split = np.where(is_series[:, None], [_FIRST_RELATED, 1 - _FIRST_RELATED], [1.0, 0.0])
        seen = np.sort(history, axis=1)
        node, unseen = _open_nodes(shop, node, seen)
        return cls(shop, ahead, ahead_probability, node, (1 - stays) * split, unseen, seen)

    def draw(self, rng: np.random.Generator) -> tuple[Numbers, BoolArray]:
        """Return an unseen item for each user [U] and whether it lies ahead in the series [U]."""
        probability = np.concatenate([self.ahead_probability, self.node_probability], axis=1)
        chance = rng.random(len(probability))[:, None] * probability.sum(axis=1, keepdims=True)
        choice = (chance >= np.cumsum(probability, axis=1)).sum(axis=1)
        users, steps = np.arange(len(choice)), self.ahead.shape[1]
        is_ahead = choice < steps
        column = np.clip(choice - steps, 0, self.node.shape[1] - 1)
        drawn = _draw_unseen(self.shop, self.node[users, column], self.seen, rng)
        return np.where(is_ahead, self.ahead[users, choice % steps], drawn), is_ahead

    def of_users(self, chosen: BoolArray) -> Self:
        """Return the distribution of some of the users, [U] true for those."""
        return type(self)(
            self.shop,
            self.ahead[chosen],
            self.ahead_probability[chosen],
            self.node[chosen],
            self.node_probability[chosen],
            self.unseen_weight[chosen],
            self.seen[chosen],
        )

    def best(self, top: Numbers, count: int) -> Numbers:
        """Return each user's most probable items, best first [U, count].

        Args:
            top: The heaviest items of each node [M, X], heaviest first, X >= count + T.
            count: Length of the ranking; `NOTHING` fills rankings with fewer possible items.
        """
        candidates = np.concatenate(
            [self.ahead, top[self.node[:, 0]], top[self.node[:, 1]]], axis=1
        )
        candidates.sort(axis=1)
        probability = self.probability(candidates)
        probability[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = 0.0
        order = np.argsort(-probability, axis=1, kind="stable")[:, :count]
        ranked = np.take_along_axis(candidates, order, axis=1)
        return np.where(np.take_along_axis(probability, order, axis=1) > 0, ranked, NOTHING)

    def probability(self, items: Numbers) -> Weights:
        """Return the probability of `items` [U, C]."""
        probability = np.zeros(items.shape)
        for column in range(self.ahead.shape[1]):
            matches = items == self.ahead[:, column, None]
            probability += np.where(matches, self.ahead_probability[:, column, None], 0.0)
        for column in range(self.node.shape[1]):
            node = self.node[:, column, None]
            inside = (items >= self.shop.start[node]) & (items < self.shop.end[node])
            rate = self.node_probability[:, column] / self.unseen_weight[:, column]
            probability += np.where(inside, self.shop.weight[items] * rate[:, None], 0.0)
        for column in range(self.seen.shape[1]):
            probability[items == self.seen[:, column, None]] = 0.0
        probability[items == NOTHING] = 0.0
        return probability


def first_items(shop: Shop, users: int, rng: np.random.Generator) -> Numbers:
    """Draw each user's department, and from it the first item [U]."""
    nothing = np.full((users, 1), NOTHING)
    hint = _draw_unseen(shop, np.full(users, ROOT), nothing, rng)
    return _draw_unseen(shop, shop.nodes[DEPARTMENT, hint], nothing, rng)


def narrowed(shop: Shop, stage: Numbers, item: Numbers, is_ahead: BoolArray) -> Numbers:
    """Return the stage of each user's next event [U].

    Args:
        shop: The shop.
        stage: Stage from which `item` was drawn [U].
        item: The item just seen [U].
        is_ahead: Whether it lay ahead in the series [U]; a user who moved on is at a leaf.
    """
    reached = np.where(stage == SERIES, np.where(is_ahead, SERIES, LEAF), stage)
    deeper = np.minimum(reached + 1, SERIES)
    is_undivided = shop.nodes[SECTION, item] == shop.nodes[LEAF, item]
    return np.where((deeper == SECTION) & is_undivided, SERIES, deeper)


def _open_nodes(shop: Shop, node: Numbers, seen: Numbers) -> tuple[Numbers, Weights]:
    """Widen nodes without an unseen item to the whole shop; return nodes and unseen weights."""
    total, unseen = _unseen_weight(shop, node, seen)
    open_node = np.where(unseen > _EXHAUSTED * total, node, ROOT)
    return open_node, _unseen_weight(shop, open_node, seen)[1]


def _unseen_weight(shop: Shop, node: Numbers, seen: Numbers) -> tuple[Weights, Weights]:
    """Return the weight of each node [U, 2] and of what of it is not among `seen` [U, T]."""
    start, end = shop.start[node], shop.end[node]
    total = shop.cumulative[end] - shop.cumulative[start]
    inside = (seen[:, None, :] >= start[:, :, None]) & (seen[:, None, :] < end[:, :, None])
    return total, total - np.where(inside, shop.weight[seen][:, None, :], 0.0).sum(axis=2)


def _draw_unseen(shop: Shop, node: Numbers, seen: Numbers, rng: np.random.Generator) -> Numbers:
    """Draw an item by weight from each node [U], none of `seen` [U, T] (ascending)."""
    start, end = shop.start[node], shop.end[node]
    unseen = _unseen_weight(shop, node[:, None], seen)[1][:, 0]
    place = shop.cumulative[start] + rng.random(len(node)) * unseen
    for column in range(seen.shape[1]):
        item = seen[:, column]
        # Walking up the seen items, each one that lies below shifts the place by its weight.
        is_below = (item >= start) & (item < end) & (place >= shop.cumulative[item])
        place = place + np.where(is_below, shop.weight[item], 0.0)
    drawn = np.searchsorted(shop.cumulative, place, side="right") - 1
    drawn = np.clip(drawn, start, end - 1)
    repeated = (drawn[:, None] == seen).any(axis=1)  # a matter of rounding, at the edge of an item
    if repeated.any():
        drawn[repeated] = _draw_unseen(shop, node[repeated], seen[repeated], rng)
    return drawn
