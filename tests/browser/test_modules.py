"""Arithmetic of the console's modules, in the browser that runs them."""

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import OpenPage
from tests.end_to_end.service_process import ServiceProcess


@pytest.fixture
def page(service: ServiceProcess, open_page: OpenPage) -> Page:
    return open_page(service.url)


def test_quantiles_are_those_of_prometheus(page: Page) -> None:
    text = """
# TYPE t histogram
t_bucket{route="/a",le="0.1"} 2.0
t_bucket{route="/a",le="0.2"} 6.0
t_bucket{route="/a",le="+Inf"} 8.0
t_bucket{route="/b \\"x\\"",le="0.1"} 100.0
t_bucket{route="/b \\"x\\"",le="+Inf"} 100.0
t_count{route="/a"} 8.0
"""
    found: dict[str, Any] = page.evaluate(
        """async (text) => {
          const {samples, buckets, between, quantile, total} =
            await import("/console/prometheus.js");
          const read = samples(text);
          const counts = buckets(read, "t", {route: "/a"});
          const later = counts.map(([bound, count], at) => [bound, count + [0, 4, 4][at]]);
          return {
            half: quantile(0.5, counts),
            last: quantile(0.99, counts),
            first: quantile(0.125, counts),
            none: quantile(0.5, between(counts, counts)),
            since: quantile(0.5, between(counts, later)),
            count: total(read, "t_count"), missing: total(read, "lost_total"),
          };
        }""",
        text,
    )
    assert found["half"] == pytest.approx(0.15)  # the second of the four between 0.1 and 0.2
    assert found["last"] == pytest.approx(0.2)  # beyond the last bound nothing is known
    assert found["first"] == pytest.approx(0.05)
    assert found["none"] is None
    assert found["since"] == pytest.approx(0.15)
    assert (found["count"], found["missing"]) == (8, 0)


@pytest.mark.parametrize("sizes", [[6, 6, 4, 3, 2, 2, 1], [1], [1000, 1, 1], [5] * 40])
def test_a_treemap_fills_its_place_without_overlaps(page: Page, sizes: list[int]) -> None:
    boxes: list[dict[str, float]] = page.evaluate(
        """async (sizes) => (await import("/console/treemap.js"))
             .squarified(sizes, {x: 10, y: 20, width: 600, height: 400})""",
        sizes,
    )
    unit = 600 * 400 / sum(sizes)
    assert [box["width"] * box["height"] / unit for box in boxes] == pytest.approx(sizes)
    for box in boxes:
        assert box["x"] >= 10 - 1e-6
        assert box["y"] >= 20 - 1e-6
        assert box["x"] + box["width"] <= 610 + 1e-6
        assert box["y"] + box["height"] <= 420 + 1e-6
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            across = _overlap(one, other, "x", "width")
            down = _overlap(one, other, "y", "height")
            assert min(across, down) < 1e-6


def test_a_treemap_of_the_published_example(page: Page) -> None:
    """Bruls, Huizing and van Wijk (2000), figure 5: 6, 6, 4, 3, 2, 2, 1 in 6 x 4."""
    boxes: list[dict[str, float]] = page.evaluate(
        """async () => (await import("/console/treemap.js"))
             .squarified([6, 6, 4, 3, 2, 2, 1], {x: 0, y: 0, width: 6, height: 4})"""
    )
    assert boxes[0] == pytest.approx({"x": 0, "y": 0, "width": 3, "height": 2})
    assert boxes[1] == pytest.approx({"x": 0, "y": 2, "width": 3, "height": 2})
    assert boxes[2]["width"] == pytest.approx(12 / 7)


def _overlap(one: dict[str, float], other: dict[str, float], start: str, size: str) -> float:
    ends = min(one[start] + one[size], other[start] + other[size])
    return ends - max(one[start], other[start])
