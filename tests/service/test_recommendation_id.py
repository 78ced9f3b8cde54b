import base64
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.recommendation_id import ATTRIBUTION_SECONDS, Attribution, RecommendationIds
from service.schemas import ID_MAX, K_MAX, RECOMMENDATION_ID_MAX

SECRETS = ("n" * 32, "o" * 32)
NOW_MS = 1_800_000_000_123


@dataclass
class Item:
    item_id: str
    rank: int
    source: str = "generated"


@dataclass
class Clock:
    now_ms: int = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Desk:
    clock: Clock = field(default_factory=Clock)

    def ids(self, *secrets: str) -> RecommendationIds:
        return RecommendationIds(secrets or SECRETS, clock_ms=self.clock)

    def issue(self, *items: Item) -> str:
        return self.ids().issue(items, bundle="c0ffee", variant="b")


SHOWN = (Item("shoe", 1), Item("hat", 2, "popular"), Item("coat", 3, "a new source"))


def test_an_event_finds_rank_source_bundle_variant_and_time() -> None:
    desk = Desk()
    given_id = desk.issue(*SHOWN)
    expected = Attribution(NOW_MS, "c0ffee", "b", 2, "popular")
    assert desk.ids().attribute(given_id, "hat") == expected
    assert desk.ids().attribute(given_id, "coat") == replace(expected, rank=3, source="other")
    assert desk.ids().attribute(given_id, "scarf") == "not_served"


def test_ranks_go_on_where_a_later_page_begins() -> None:
    desk = Desk()
    found = desk.ids().attribute(desk.issue(Item("shoe", 11), Item("hat", 12)), "hat")
    assert isinstance(found, Attribution)
    assert found.rank == 12


def test_no_two_answers_have_the_same_id() -> None:
    assert len({Desk().issue(*SHOWN) for _ in range(100)}) == 100


def test_a_retired_secret_is_accepted_until_it_is_removed() -> None:
    desk = Desk()
    old = desk.ids(SECRETS[1]).issue(SHOWN, bundle="c0ffee", variant="b")
    assert isinstance(desk.ids(*SECRETS).attribute(old, "shoe"), Attribution)
    assert desk.ids(SECRETS[0]).attribute(old, "shoe") == "invalid"
    new = desk.ids(*SECRETS).issue(SHOWN, bundle="c0ffee", variant="b")
    assert desk.ids(SECRETS[1]).attribute(new, "shoe") == "invalid"


def test_without_secrets_only_the_own_ids_are_known() -> None:
    mine, other = RecommendationIds(), RecommendationIds()
    given_id = mine.issue(SHOWN, bundle="c0ffee", variant="b")
    assert isinstance(mine.attribute(given_id, "shoe"), Attribution)
    assert other.attribute(given_id, "shoe") == "invalid"


def test_an_id_expires_and_none_comes_from_the_future() -> None:
    desk = Desk()
    given_id = desk.issue(*SHOWN)
    desk.clock.now_ms = NOW_MS + ATTRIBUTION_SECONDS * 1_000
    assert isinstance(desk.ids().attribute(given_id, "shoe"), Attribution)
    desk.clock.now_ms += 1
    assert desk.ids().attribute(given_id, "shoe") == "expired"
    desk.clock.now_ms = NOW_MS - 3_600_000
    assert desk.ids().attribute(given_id, "shoe") == "expired"


def test_every_changed_bit_is_noticed() -> None:
    desk = Desk()
    given_id = desk.issue(*SHOWN)
    whole = base64.urlsafe_b64decode(given_id + "=" * (-len(given_id) % 4))
    for place in range(len(whole) * 8):
        forged = bytearray(whole)
        forged[place // 8] ^= 1 << place % 8
        text = base64.urlsafe_b64encode(forged).decode().rstrip("=")
        assert desk.ids().attribute(text, "shoe") == "invalid"


@given(st.text(max_size=60) | st.text(alphabet="AQaz09-_=", max_size=60))
def test_whatever_is_sent_is_merely_invalid(text: str) -> None:
    assert Desk().ids().attribute(text, "shoe") == "invalid"


def test_the_longest_answer_fits_the_limit_and_each_rank_is_found() -> None:
    desk = Desk()
    items = [Item(f"{number}".rjust(ID_MAX, "x"), number) for number in range(1, K_MAX + 1)]
    given_id = desk.ids().issue(items, bundle="f" * 64, variant="v" * 64)
    assert len(given_id) <= RECOMMENDATION_ID_MAX
    # 20 bits of a hash tell a hundred items apart, but for once in two hundred answers.
    found = [desk.ids().attribute(given_id, item.item_id) for item in items]
    ranks = [each.rank for each in found if isinstance(each, Attribution)]
    assert len(ranks) == K_MAX
    assert sum(rank == item.rank for rank, item in zip(ranks, items, strict=True)) >= K_MAX - 3


def test_an_answer_without_items_has_an_id_too() -> None:
    desk = Desk()
    assert desk.ids().attribute(desk.issue(), "shoe") == "not_served"


@pytest.mark.parametrize("name", ["c0ffee", "é" * 100])
def test_names_come_back(name: str) -> None:
    desk = Desk()
    found = desk.ids().attribute(desk.ids().issue(SHOWN, bundle=name, variant=name), "shoe")
    assert isinstance(found, Attribution)
    assert (found.bundle, found.variant) == (name, name)
