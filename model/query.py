"""What is asked of a recommender, and what it answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from model.attributes import Filters
from model.boosts import Boost
from model.bundle import Bundle
from model.errors import ConfigError
from model.explain import Explanation
from model.explore import Choice
from model.types import CategoryPath, ItemId, SemanticId


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Query:
    """What one request asks for."""

    history: Sequence[ItemId] = ()
    """Oldest first; unknown ids are skipped and counted."""
    k: int = 10
    exclude: Sequence[ItemId] = ()
    """Never returned; unknown ids are ignored."""
    seen: Sequence[ItemId] = ()
    """More items that the user has seen than `history` holds."""
    exclude_seen: bool = True
    """Drop the items of `history` and `seen`."""
    categories: Sequence[Sequence[str]] = ()
    """Paths: an item passes when one of its paths starts with one of these; none lets all pass."""
    beam: int | Literal["auto"] | None = None
    """Beams kept after each level, but never fewer than k; None for the bundle's width; `auto` to
    double it until the answer is certified, or time or `served_search.WIDEST_AUTO` are used up."""
    deadline: float = field(default=math.inf, compare=False)
    """When the answer has to be there, a reading of `time.perf_counter`."""
    is_abandoned: Callable[[], bool] = field(default=_never, compare=False)
    """Whether nobody waits for the answer any more: what only makes it better is then left out."""
    filters: Filters = field(default_factory=dict)
    """Conditions on attributes by name; an item must pass all of them."""
    path: Sequence[str] = ()
    """A place of the browsed tree: only its items; () is everything."""
    choices: int | None = None
    """Tell the next choices below `path` too, each with so many of its best items."""
    explain: bool = False
    """Say of every item why it is there."""
    diversity: float = 0.0
    """0 .. 1: how far the list follows the categories of the history instead of the score."""
    exploration: float = 0.0
    """0 .. 1: temperature of drawing by log-probability; 0 draws nothing and takes the best."""
    anchors: Sequence[ItemId] = ()
    """Items being looked at: read as the newest of the history, never returned; items like them
    come first."""
    boosts: tuple[Boost, ...] = ()
    """Shifts of the scores of some items."""
    pins: Mapping[int, ItemId] = field(default_factory=dict)
    """Items by position, from 1: put there where they are legal and the position is at most `k`."""

    @property
    def is_reordered(self) -> bool:
        """Whether the order is not the network's alone; such an answer is never certified."""
        return bool(self.diversity > 0 or self.exploration > 0 or self.anchors or self.boosts)

    def __post_init__(self) -> None:
        if self.k < 0:
            message = f"k is {self.k}: ask for 0 or more items"
            raise ConfigError(message)
        if isinstance(self.beam, int) and self.beam < 1:
            message = f"beam is {self.beam}: keep 1 or more beams"
            raise ConfigError(message)


@dataclass(frozen=True)
class RecommendedItem:
    """One item of an answer."""

    item_id: ItemId
    rank: int
    """1 is the best."""
    score: float
    source: str
    """`generated`; `partial`, of a path that is generated as far as there was time for and popular
    below; or the link of the fallback chain: `popular_in_category`, `popular` or `default`. Instead
    of these `boosted`, where a boost has raised its score, or `pinned`."""
    title: str
    path: CategoryPath
    semantic_id: SemanticId
    level_log_probs: tuple[float, ...] | None
    """Of each generated choice from coarse to fine, [L + 1]; None for items of the fallback chain,
    and for all items where the choices have no fixed order."""
    explanation: Explanation | None = None
    """Where it was asked for."""
    propensity: float | None = None
    """Probability of this item at this rank, given those before it; where items were drawn."""


@dataclass(frozen=True)
class Recommendation:
    """One answer, best item first."""

    items: tuple[RecommendedItem, ...]
    unknown_history_items: int
    certified: bool | None
    """Whether the generated list is proven to be the exact one; None where nothing was searched,
    where there was no time for all levels, where the order is not the score's alone, and where the
    search proves nothing."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds in `encode`, `decode` and `resolve`."""
    levels: int | None = None
    """Choices from coarse to fine that there was time for; None for all of them."""
    place: Choice | None = None
    """The place that `path` names, as its choices are; None where no choices were asked for."""
    choices: tuple[Choice, ...] = ()
    """The next ones below it, the most probable first."""
    bundle: Bundle | None = field(default=None, compare=False, repr=False)
    """The state of the catalogue that it was made from, where leaves are looked up."""
    is_partly_explained: bool = False
    """Whether there was no time for all that explanations say."""
