"""A master is lost under load, and what replaces it: by Sentinel, and in a Redis Cluster."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.redis_cluster_servers import running_cluster
from tests.contract.redis_sentinels import running_sentinels
from tests.end_to_end.service_process import running_service, wait_until
from tests.faults.findings import Findings, compare
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
    """Redis with a master that can be lost, and who says that another one is in its place."""

    url: str
    lose: Callable[[], None]
    is_replaced: Callable[[], bool]


@contextmanager
def behind_sentinels(folder: Path) -> Iterator[Failover]:
    with running_sentinels(folder, appendonly=True) as sentinels:
        lost = sentinels.first_master
        yield Failover(sentinels.url, lost.kill, lambda: sentinels.master_port() != lost.port)


@contextmanager
def in_a_cluster(folder: Path) -> Iterator[Failover]:
    with running_cluster(folder, replicas=1, appendonly=True) as cluster:
        yield Failover(
            cluster.url,
            cluster.masters[0].kill,
            lambda: cluster.is_served_without(cluster.masters[0]),
        )


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
    running: Callable[[Path], AbstractContextManager[Failover]],
    shop_bundle: Path,
    items: list[str],
    tmp_path: Path,
    findings: Findings,
) -> None:
    (tmp_path / "redis").mkdir()
    with (
        running(tmp_path / "redis") as redis,
        running_service(
            shop_bundle, tmp_path, state_url=redis.url, deadline_ms=DEADLINE_MS
        ) as service,
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
    found.note = f"another master after {replaced - killed:.1f} s; recovery counts from then"
    findings.load.append(found)

    assert normal.statuses.keys() == {200}
    assert during.recommendations.statuses.keys() == {200}
    assert during.statuses.keys() <= {200, 503}
    assert load.calls.slowest_ms < DEADLINE_MS + SLACK_MS
    assert ledger.lost <= confirmed_shortly_before(load.calls, killed)
    assert (ledger.doubled, ledger.missing_after_retry) == (0, ledger.lost)
    assert recovery < RECOVERY_SECONDS


def confirmed_shortly_before(calls: Calls, killed: float) -> int:
    """How many events were answered 200 so late that their replication is not certain."""
    confirmed = calls.ended_within(killed - REPLICATION_SECONDS - 1, killed + 1).answered
    return sum(
        call.request.event is not None
        and call.due + call.seconds > killed - REPLICATION_SECONDS
        and call.due < killed
        for call in confirmed
    )
