"""One picture per part."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes


def draw(part: str, result: dict[str, Any], path: Path) -> None:
    """Write the picture of one part's result."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    _DRAWINGS[part](axes, result)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _model(axes: Axes, result: dict[str, Any]) -> None:
    case = next(c for c in result["cases"] if c["history"] == 50 and c["beams"] == 50)
    _bars(axes, case["timings"])
    axes.axvline(case["floor_ms"], color="black", linestyle=":", label="floor")
    axes.set_xscale("log")
    axes.set_title("One request, one thread, history 50, 50 beams")
    axes.legend()


def _sizes(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["rows"]
    for name in ("generator", "recommendation", "exhaustive", "HNSW"):
        points = [(r["items"], r["timings"][name]["cpu_ms"]) for r in rows if name in r["timings"]]
        axes.loglog(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="items", ylabel="CPU ms", title="One search, 50 results")
    axes.legend()


def _filters(axes: Axes, result: dict[str, Any]) -> None:
    _bars(axes, result["timings"])
    axes.set_title(f"{result['items']:,} items")


def _bars(axes: Axes, timings: dict[str, Any]) -> None:
    names = list(timings)[::-1]
    middles = [timings[name]["cpu_ms"] for name in names]
    lows = [max(0, timings[name]["cpu_ms"] - timings[name]["cpu_low_ms"]) for name in names]
    highs = [max(0, timings[name]["cpu_high_ms"] - timings[name]["cpu_ms"]) for name in names]
    axes.barh(names, middles, xerr=[lows, highs])
    axes.set_xlabel("CPU ms, median with 10th to 90th percentile")


def _http(axes: Axes, result: dict[str, Any]) -> None:
    for name, runs in result["runs"].items():
        axes.plot([r["rate"] for r in runs], [r["p99_ms"] for r in runs], marker="o", label=name)
    axes.axhline(result["p99_max_ms"], color="black", linestyle=":")
    axes.set(xlabel="requests per second", ylabel="p99 ms", yscale="log", title="Over HTTP")
    axes.legend()


def _sizing(axes: Axes, result: dict[str, Any]) -> None:
    runs = result["rates"].values()
    axes.plot([r["rate"] for r in runs], [r["goodput"] for r in runs], marker="o", label="answered")
    predicted = result["costs"]["predicted"]
    axes.axhline(predicted, color="black", linestyle=":", label="predicted for one core")
    axes.set(xlabel="requests per second asked for", ylabel="per second", title="One core")
    axes.legend()


def _users(axes: Axes, result: dict[str, Any]) -> None:
    axes.bar(list(result["stored"]), list(result["stored"].values()))
    axes.set(xlabel="events of a user", ylabel="bytes", title="Redis, per user")


_DRAWINGS = {
    "model": _model,
    "sizes": _sizes,
    "filters": _filters,
    "http": _http,
    "sizing": _sizing,
    "users": _users,
}
