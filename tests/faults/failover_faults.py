"""A master is lost under load, and what replaces it: by Sentinel, and in a Redis Cluster."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from service.redis_user_state import user_keys
from tests.contract.redis_cluster_servers import running_cluster
from tests.contract.redis_sentinels import running_sentinels
from tests.end_to_end.service_process import running_service, wait_until
from tests.faults.findings import Findings, LoadFinding, check_in_time, compare
from tests.faults.load import Calls, MixedTraffic, settle, steady_load
from tests.faults.redis_faults import (
    DEADLINE_MS,
    NORMAL_SECONDS,
    RATE,
    RECOVERY_SECONDS,
    SLACK_MS,
)

REPLICATION_SECONDS = 1.0
"""Redis replicates after it has answered: what was confirmed so shortly before may be lost."""
PROMOTION_SECONDS = 30.0


@dataclass(frozen=True)
class Failover:
    """Redis with a master that can be lost.

    Attributes:
        is_replaced: another master is in its place, for whoever asks.
        had: whether the state of a user was with the one that is lost.
    """

    url: str
    lose: Callable[[], None]
    is_replaced: Callable[[], bool]
    had: Callable[[str], bool]


@contextmanager
def behind_sentinels(folder: Path) -> Iterator[Failover]:
    with running_sentinels(folder, appendonly=True) as sentinels:
        lost = sentinels.first_master
        yield Failover(
            sentinels.url, lost.kill, lambda: sentinels.is_replaced(lost), had=lambda _: True
        )


@contextmanager
def in_a_cluster(folder: Path) -> Iterator[Failover]:
    with running_cluster(folder, replicas=1, appendonly=True) as cluster:
        lost = cluster.masters[0]
        yield Failover(
            cluster.url,
            lost.kill,
            lambda: cluster.is_served_without(lost),
            had=lambda user_id: cluster.master_of(user_keys(user_id)[0]) is lost,
        )


Running = Callable[[Path], AbstractContextManager[Failover]]


@pytest.mark.parametrize(
    ("name", "running"),
    [
        ("master killed, Sentinel promotes a replica", behind_sentinels),
        ("one of three masters of a cluster killed", in_a_cluster),
    ],
    ids=["sentinel", "cluster"],
)
def test_a_lost_master_costs_no_answer_and_no_event_that_was_replicated(
    name: str,
    running: Running,
    shop_bundle: Path,
    items: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    findings: Findings,
) -> None:
    check_in_time(partial(measured, name, running, shop_bundle, items, tmp_path_factory, findings))


def measured(
    name: str,
    running: Running,
    bundle: Path,
    items: list[str],
    folders: pytest.TempPathFactory,
    findings: Findings,
) -> LoadFinding:
    """Check everything but how long answers take, and tell that."""
    folder = folders.mktemp("failover")
    with (
        running(folder) as redis,
        running_service(bundle, folder, state_url=redis.url, deadline_ms=DEADLINE_MS) as service,
    ):
        with steady_load([service], MixedTraffic(items), rate=RATE) as load:
            load.wait_for(1)
            before = load.wait_for(NORMAL_SECONDS)
            killed = time.monotonic()
            redis.lose()
            wait_until(redis.is_replaced, "another master", seconds=PROMOTION_SECONDS)
            replaced = time.monotonic()
            after = load.wait_for(RECOVERY_SECONDS + 1)
        ledger = settle(service, load)
    normal, during = load.calls.ended_within(*before), load.calls.due_within(killed, replaced)
    recovery = load.calls.due_within(*after).recovery_seconds(replaced)
    found = compare(name, normal, during, recovery_seconds=recovery, ledger=ledger)
    theirs = Calls(call for call in during if call.asks_by_user and redis.had(call.user_id))
    others = Calls(call for call in during if call.asks_by_user and not redis.had(call.user_id))
    found.note = (
        f"another master after {replaced - killed:.1f} s; recovery counts from then; until then "
        f"{len(theirs)} of {len(theirs + others)} requests by user were for users of the lost one"
    )
    findings.load.append(found)

    assert normal.statuses.keys() == {200}
    assert during.recommendations.statuses.keys() == {200}
    assert during.statuses.keys() <= {200, 503}
    assert theirs.degraded_share > 0.9
    assert others.degraded_share < 0.25, "more than a late read or two on a busy machine"
    assert load.calls.slowest_ms < DEADLINE_MS + SLACK_MS
    assert ledger.lost <= confirmed_shortly_before(load.calls, killed)
    assert (ledger.doubled, ledger.missing_after_retry) == (0, ledger.lost)
    assert recovery < RECOVERY_SECONDS
    return found


def confirmed_shortly_before(calls: Calls, killed: float) -> int:
    """How many events were answered 200 so late that their replication is not certain."""
    confirmed = calls.ended_within(killed - REPLICATION_SECONDS - 1, killed + 1).answered
    return sum(
        call.request.event is not None
        and call.due + call.seconds > killed - REPLICATION_SECONDS
        and call.due < killed
        for call in confirmed
    )
