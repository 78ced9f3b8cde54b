"""Redis killed, hung, slow and full under load: answers go on, events are stored or refused."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.contract.redis_server import RedisServer, running_redis
from tests.end_to_end.service_process import running_service
from tests.faults.findings import Findings, LoadFinding, check_in_time, compare
from tests.faults.load import MixedTraffic, settle, steady_load
from tests.faults.slow_proxy import SlowProxy, slow_proxy

RATE = 40.0
NORMAL_SECONDS = 8.0
FAULT_SECONDS = 8.0
RECOVERY_SECONDS = 5.0
DEADLINE_MS = 1_000
SLACK_MS = 250
"""What the way to the client may add on a machine with other work."""


@dataclass(frozen=True)
class Fault:
    """How to break Redis, seen through a proxy, and how to mend it."""

    name: str
    begin: Callable[[RedisServer, SlowProxy], None]
    end: Callable[[RedisServer, SlowProxy], None]
    is_degrading: bool = True
    """Whether no user's state can be read meanwhile."""
    delay_ms: float = 0.0
    """What it adds to a round trip that answers wait for."""
    read_deadline_ms: int = 30
    """How long answers wait for a user's state; 30 is the default."""


def fill(server: RedisServer, memory: int) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", memory)


def slow_down(milliseconds: float) -> Callable[[RedisServer, SlowProxy], None]:
    def slow(_: RedisServer, proxy: SlowProxy) -> None:
        proxy.delay_seconds = milliseconds / 1_000

    return slow


FAULTS = [
    Fault("Redis killed", lambda server, _: server.kill(), lambda server, _: server.start()),
    Fault("Redis hung", lambda server, _: server.pause(), lambda server, _: server.resume()),
    Fault("Redis 10 ms slower", slow_down(5), slow_down(0), is_degrading=False, delay_ms=10),
    Fault("Redis 10 ms slower, awaited for 5 ms", slow_down(5), slow_down(0), read_deadline_ms=5),
    Fault("Redis 200 ms slower", slow_down(100), slow_down(0)),
    Fault("Redis full", lambda s, _: fill(s, 1), lambda s, _: fill(s, 0), is_degrading=False),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_answers_go_on_in_time_and_events_are_stored_once(
    fault: Fault,
    shop_bundle: Path,
    items: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    findings: Findings,
) -> None:
    check_in_time(partial(measured, fault, shop_bundle, items, tmp_path_factory, findings))


def measured(
    fault: Fault,
    bundle: Path,
    items: list[str],
    folders: pytest.TempPathFactory,
    findings: Findings,
) -> LoadFinding:
    """Check everything but how long answers take, and tell that."""
    folder = folders.mktemp("fault")
    with (
        running_redis(folder, appendonly=True) as server,
        slow_proxy(server.port) as proxy,
        running_service(
            bundle,
            folder,
            state_url=f"redis://127.0.0.1:{proxy.port}/0" if "slower" in fault.name else server.url,
            deadline_ms=DEADLINE_MS,
            state_read_deadline_ms=fault.read_deadline_ms,
        ) as service,
    ):
        with steady_load([service], MixedTraffic(items), rate=RATE) as load:
            load.wait_for(1)
            before = load.wait_for(NORMAL_SECONDS)
            fault.begin(server, proxy)
            within = load.wait_for(FAULT_SECONDS)
            fault.end(server, proxy)
            repaired = load.wait_for(RECOVERY_SECONDS + 1)
        ledger = settle(service, load)
        assert service.metric("cofine_redis_circuit_state") == 0
    normal, during = load.calls.ended_within(*before), load.calls.due_within(*within)
    recovery = load.calls.due_within(*repaired).recovery_seconds(repaired[0])
    found = compare(fault.name, normal, during, recovery_seconds=recovery, ledger=ledger)
    found.delay_ms = fault.delay_ms
    findings.load.append(found)

    assert normal.statuses.keys() == {200}
    assert during.recommendations.statuses.keys() == {200}
    assert during.statuses.keys() <= {200, 503}
    if fault.is_degrading:
        assert during.degraded_share > 0.9
    else:  # the machine's other work may make some reads late
        assert during.degraded_share < 0.5
    assert load.calls.slowest_ms < DEADLINE_MS + SLACK_MS
    assert (ledger.lost, ledger.doubled, ledger.missing_after_retry) == (0, 0, 0)
    assert recovery < RECOVERY_SECONDS
    return found
