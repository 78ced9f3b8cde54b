"""Recommendation ids: they say themselves, signed, what was recommended, when and by which bundle.

So an event that names one is attributed without any lookup, by every replica, after a restart and
when Redis is down. An id is base64url of

    1 byte        format
    6 bytes       when, in milliseconds of Unix time
    6 bytes       random, so that no two ids are the same
    1 + n bytes   bundle: length and name
    1 + n bytes   variant, the same
    2 bytes       rank of the first item
    3 bytes each  items in their order: 20 bits of a hash of random bytes and id, 4 bits of source
    16 bytes      HMAC-SHA256 of all this, cut

It holds no user and cannot be turned back into item ids, only compared with one: an item that was
not served passes for one with a probability of a millionth per item served.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from service.metrics import ITEM_SOURCES, OTHER

ATTRIBUTION_SECONDS = 86_400
"""An event is attributed to a recommendation of at most this age."""

_FORMAT = 1
_TIME_BYTES, _RANDOM_BYTES, _RANK_BYTES, _ITEM_BYTES, _TAG_BYTES = 6, 6, 2, 3, 16
_SOURCE_BITS = 4
_SOURCE_MASK = (1 << _SOURCE_BITS) - 1
_SOURCE_NUMBERS = {source: number for number, source in enumerate(ITEM_SOURCES)}
_AHEAD_MS = 60_000  # what the clocks of two replicas may differ by

UnattributedReason: TypeAlias = Literal["invalid", "expired", "not_served"]
"""`invalid`: not signed by this service, or by a secret no longer in use; `expired`: too old;
`not_served`: the recommendation did not hold the item."""


class Recommended(Protocol):
    """An item of an answer."""

    @property
    def item_id(self) -> str:
        """The catalogue's id."""
        ...

    @property
    def rank(self) -> int:
        """1 is best; an answer's ranks are consecutive."""
        ...

    @property
    def source(self) -> str:
        """Where it comes from, as the answer says."""
        ...


@dataclass(frozen=True, slots=True)
class Attribution:
    """What an event owes to a recommendation.

    Attributes:
        recommended_ms: when the recommendation was made, in milliseconds of Unix time.
        bundle: that made it.
        variant: of the experiment that chose the bundle.
        rank: of the event's item in the answer.
        source: one of `service.metrics.ITEM_SOURCES`.
    """

    recommended_ms: int
    bundle: str
    variant: str
    rank: int
    source: str


class RecommendationIds:
    """Issues ids with the first secret and accepts those of any; without secrets only its own."""

    def __init__(
        self,
        given_secrets: Sequence[str] = (),
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._keys = [secret.encode() for secret in given_secrets] or [secrets.token_bytes(32)]
        self._clock_ms = clock_ms

    def issue(self, items: Sequence[Recommended], *, bundle: str, variant: str) -> str:
        """Return the id of an answer with these items; any number of them, also none."""
        random = secrets.token_bytes(_RANDOM_BYTES)
        first_rank = items[0].rank if items else 1
        hashing = _item_hashing(random)
        body = b"".join(
            (
                bytes([_FORMAT]),
                self._clock_ms().to_bytes(_TIME_BYTES),
                random,
                _short_text(bundle),
                _short_text(variant),
                first_rank.to_bytes(_RANK_BYTES),
                *(_item_mark(hashing, item.item_id, item.source) for item in items),
            )
        )
        return base64.urlsafe_b64encode(body + _tag(self._keys[0], body)).decode().rstrip("=")

    def attribute(self, recommendation_id: str, item_id: str) -> Attribution | UnattributedReason:
        """Return what an event now with `item_id` owes to the recommendation, or why nothing."""
        body = self._verified(recommendation_id)
        if body is None:
            return "invalid"
        rest = body[1:]
        time_bytes, rest = rest[:_TIME_BYTES], rest[_TIME_BYTES:]
        random, rest = rest[:_RANDOM_BYTES], rest[_RANDOM_BYTES:]
        bundle, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        variant, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        first_rank, marks = int.from_bytes(rest[:_RANK_BYTES]), rest[_RANK_BYTES:]
        recommended_ms = int.from_bytes(time_bytes)
        age_ms = self._clock_ms() - recommended_ms
        if not -_AHEAD_MS <= age_ms <= ATTRIBUTION_SECONDS * 1_000:
            return "expired"
        hash_bits = _item_hash(_item_hashing(random), item_id)
        for place in range(len(marks) // _ITEM_BYTES):
            mark = int.from_bytes(marks[place * _ITEM_BYTES : (place + 1) * _ITEM_BYTES])
            if mark >> _SOURCE_BITS == hash_bits:
                source = ITEM_SOURCES[mark & _SOURCE_MASK]
                rank = first_rank + place
                return Attribution(recommended_ms, bundle.decode(), variant.decode(), rank, source)
        return "not_served"

    def _verified(self, recommendation_id: str) -> bytes | None:
        """Return the signed bytes, None when the id is none of ours."""
        padded = recommendation_id + "=" * (-len(recommendation_id) % 4)
        try:
            whole = base64.b64decode(padded, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, tag = whole[:-_TAG_BYTES], whole[-_TAG_BYTES:]
        is_ours = any(hmac.compare_digest(_tag(key, body), tag) for key in self._keys)
        return body if is_ours and body[:1] == bytes([_FORMAT]) else None


def _tag(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_TAG_BYTES]


def _short_text(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def _item_hashing(random: bytes) -> "hashlib.blake2b":
    return hashlib.blake2b(random, digest_size=_ITEM_BYTES)


def _item_mark(hashing: "hashlib.blake2b", item_id: str, source: str) -> bytes:
    digest = _item_digest(hashing, item_id)
    number = _SOURCE_NUMBERS.get(source, _SOURCE_NUMBERS[OTHER])
    return digest[:-1] + bytes((digest[-1] & ~_SOURCE_MASK | number,))


def _item_hash(hashing: "hashlib.blake2b", item_id: str) -> int:
    return int.from_bytes(_item_digest(hashing, item_id)) >> _SOURCE_BITS


def _item_digest(hashing: "hashlib.blake2b", item_id: str) -> bytes:
    one = hashing.copy()
    one.update(item_id.encode())
    return one.digest()
