import pytest

from model.recent_times import FRESH_SECONDS, KEPT, RecentTimes


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time

    def passes(self, seconds: float) -> float:
        """Move on; return when that began."""
        self.time += seconds
        return self.time - seconds


def test_the_95th_percentile_leaves_the_slowest_twentieth_out() -> None:
    clock = Clock()
    times = RecentTimes(clock)
    for hundredths in [1] * 19 + [50]:
        times.note("search", clock.passes(hundredths / 100))

    assert times.p95("search") == pytest.approx(0.01)
    times.note("search", clock.passes(0.5))
    assert times.p95("search") == pytest.approx(0.5)


def test_nothing_measured_is_nothing_known() -> None:
    times = RecentTimes(Clock())
    times.note("search", 99.0)

    assert times.p95("encode") is None
    assert times.p95("search") == 1.0


def test_only_the_newest_times_count() -> None:
    clock = Clock()
    times = RecentTimes(clock)
    times.note("search", clock.passes(5))
    for _ in range(KEPT):
        times.note("search", clock.passes(0.01))

    assert times.p95("search") == pytest.approx(0.01)


def test_old_times_are_forgotten() -> None:
    clock = Clock()
    times = RecentTimes(clock)
    times.note("search", clock.passes(5))
    clock.passes(FRESH_SECONDS)
    assert times.p95("search") == 5
    clock.passes(0.01)
    assert times.p95("search") is None
