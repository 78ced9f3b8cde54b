"""What the table of the faults says, and when a fault counts as too slow."""

import pytest

from tests.faults.findings import Findings, LoadFinding, check_in_time


def finding(fault_p99_ms: float, *, delay_ms: float = 0.0) -> LoadFinding:
    return LoadFinding(
        fault="Redis away",
        normal_p99_ms=8,
        fault_p99_ms=fault_p99_ms,
        slowest_ms=90,
        statuses={200: 7},
        degraded_share=0.5,
        recovery_seconds=None,
        ledger=None,
        delay_ms=delay_ms,
    )


@pytest.mark.parametrize(
    ("fault_p99_ms", "delay_ms", "is_in_time"),
    [(16, 0, True), (17, 0, False), (23, 10, True), (24, 10, False), (16, 2, True)],
)
def test_twice_the_normal_p99_is_in_time_or_one_and_a_half_delays_more(
    fault_p99_ms: float, delay_ms: float, is_in_time: bool
) -> None:
    assert finding(fault_p99_ms, delay_ms=delay_ms).is_in_time == is_in_time


def test_a_miss_is_measured_once_more() -> None:
    measured = iter([finding(17), finding(16), finding(16)])
    check_in_time(lambda: next(measured))
    assert len(list(measured)) == 1


def test_two_misses_fail() -> None:
    measured = iter([finding(17), finding(18), finding(16)])
    with pytest.raises(AssertionError, match="Redis away: p99 18 ms, normally 8 ms"):
        check_in_time(lambda: next(measured))


def test_the_report_says_what_it_holds_and_leaves_out_what_was_not_measured() -> None:
    report = Findings(0.84, ["redis_faults.py::test_of_it"], load=[finding(12)]).markdown()
    assert "load average 0.8 before" in report
    assert "- redis_faults.py::test_of_it\n" in report
    assert "| Redis away | 8 ms | 12 ms | 1.5 | 90 ms | 7 x 200 | 50% | - | - | - | - |" in report
