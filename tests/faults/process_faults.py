"""The service itself is stopped or killed under load, and started again."""

import signal
import time
from pathlib import Path

from tests.contract.redis_server import running_redis
from tests.end_to_end.service_process import running_service
from tests.faults.findings import Findings, compare
from tests.faults.load import NO_ANSWER, MixedTraffic, settle, steady_load
from tests.faults.redis_faults import NORMAL_SECONDS, RATE

PATIENT = {
    "state_read_deadline_ms": 5_000,
    "state_write_deadline_ms": 5_000,
    "deadline_ms": 20_000,
}
"""These are about what is lost; on a small machine a process that starts slows all others down."""


def test_restarting_replicas_one_after_the_other_loses_no_request(
    shop_bundle: Path, items: list[str], tmp_path: Path, findings: Findings
) -> None:
    with (
        running_redis(tmp_path, appendonly=True) as server,
        running_service(shop_bundle, tmp_path, state_url=server.url, **PATIENT) as first,
        running_service(shop_bundle, tmp_path, state_url=server.url, **PATIENT) as second,
    ):
        with steady_load([first, second], MixedTraffic(items), rate=RATE) as load:
            load.wait_for(1)
            before = load.wait_for(NORMAL_SECONDS)
            began = before[1]
            for service in (first, second):
                service.signal(signal.SIGTERM)
                assert service.wait() == 0
                service.start()
                load.wait_for(2)
            ended = time.monotonic()
        ledger = settle(first, load)
    normal, during = load.calls.ended_within(*before), load.calls.due_within(began, ended)
    found = compare("SIGTERM to one of two replicas, then the other", normal, during, ledger=ledger)
    found.note = "processes start beside the load"
    findings.load.append(found)

    assert load.calls.statuses.keys() == {200}
    assert (ledger.unconfirmed, ledger.lost, ledger.doubled) == (0, 0, 0)


def test_kill_and_restart_leaves_each_confirmed_event_once(
    shop_bundle: Path, items: list[str], tmp_path: Path, findings: Findings
) -> None:
    with (
        running_redis(tmp_path, appendonly=True) as server,
        running_service(shop_bundle, tmp_path, state_url=server.url, **PATIENT) as service,
    ):
        with steady_load([service], MixedTraffic(items), rate=RATE) as load:
            load.wait_for(1)
            before = load.wait_for(NORMAL_SECONDS)
            service.kill()
            server.kill()  # what was confirmed is in its file, or nowhere
            server.start()
            service.start()
            after = load.wait_for(5)
        ledger = settle(service, load)
    normal, down = load.calls.ended_within(*before), load.calls.due_within(before[1], after[1])
    recovery = load.calls.recovery_seconds(before[1])
    found = compare(
        "service and Redis killed at once", normal, down, recovery_seconds=recovery, ledger=ledger
    )
    found.note = "the one replica; recovery is its start; what got no answer is in no p99"
    findings.load.append(found)

    assert normal.statuses.keys() == {200}
    assert down.statuses.keys() == {NO_ANSWER, 200}, "the kill disturbed nobody, or more"
    assert (ledger.lost, ledger.doubled, ledger.missing_after_retry) == (0, 0, 0)
