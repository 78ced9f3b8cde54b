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


def test_sizes_that_were_not_measured_are_bounded_by_those_around() -> None:
    clock = Clock()
    times = RecentTimes(clock)
    assert times.least("search", 4) == times.most("search", 4) == 0
    times.note("search", clock.passes(1.0), 4)

    def bounds(size: int) -> tuple[float, float]:
        return times.least("search", size), times.most("search", size)

    assert bounds(4) == (1, 1)
    assert bounds(8) == (1, 2)
    assert bounds(2) == (0.5, 1)
    times.note("search", clock.passes(3.0), 16)
    assert bounds(8) == (1.5, 2)
    assert bounds(12) == (2.25, 3)
    assert bounds(32) == (3, 6)
    assert times.p95("search", 8) is None
    assert times.least("encode", 8) == 0


def test_there_is_time_for_what_takes_no_longer_by_all_that_is_known() -> None:
    clock = Clock()
    times = RecentTimes(clock)
    assert times.has_time("search", clock(), 8)
    times.note("search", clock.passes(1.0), 4)

    assert times.has_time("search", clock() + 1, 4)
    assert not times.has_time("search", clock() + 1, 8)
    assert times.has_time("search", clock() + 2, 8)
    assert not times.has_time("search", clock() + 0.5, 2)


def test_a_size_that_is_not_measured_any_more_says_nothing_of_others() -> None:
    clock = Clock()
    times = RecentTimes(clock)
    times.note("search", clock.passes(5), 1_000)
    clock.passes(FRESH_SECONDS)
    times.note("search", clock.passes(0.01), 2)

    assert times.most("search", 50) == pytest.approx(0.25)
    assert times.least("search", 1_000) == pytest.approx(0.01)
