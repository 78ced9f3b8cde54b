"""The category tree of a bundle as an icicle chart: one row per depth, wide means many items.

Shapes of the tree tell at a glance what the first codes can say: one giant category, or a hundred
tiny ones, give the generator little to begin with.
"""

from collections import Counter
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from model.bundle import Bundle
from model.catalog import Catalog
from model.types import CategoryPath

DEPTH = 4
ACROSS, UPRIGHT = 0.045, 0.008
"""Least shares of the picture's width at which a name fits across, or turned, into its box."""


def plot_categories(bundle: Bundle, path: Path) -> None:
    """Draw the primary category paths of all items, coarse at the top, as PNG."""
    counts = prefix_counts(bundle.catalog)
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    axes = figure.subplots()
    total = counts[()]
    tops = sorted({prefix[0] for prefix in counts if prefix})
    palette = colormaps["tab20"]
    colours = {name: palette(place % 20) for place, name in enumerate(tops)}
    _draw(axes, counts, (), 0.0, total, colours)
    axes.set(xlim=(0, total), ylim=(-DEPTH, 0))
    axes.set_axis_off()
    axes.set_title(f"{total:,} items by category, coarse to fine", loc="left")
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=110)
    partial.replace(path)


def prefix_counts(catalog: Catalog) -> Counter[CategoryPath]:
    """Items below every prefix of a primary path, () for all, down to `DEPTH`."""
    counts: Counter[CategoryPath] = Counter()
    for leaf in range(len(catalog)):
        primary = catalog.path(leaf)[:DEPTH]
        counts.update(primary[:end] for end in range(len(primary) + 1))
    return counts


def _draw(
    axes: Axes,
    counts: Counter[CategoryPath],
    parent: CategoryPath,
    left: float,
    total: int,
    colours: dict[str, tuple[float, float, float, float]],
) -> None:
    """Draw the children of `parent` side by side from `left`, largest first."""
    children = [p for p in counts if len(p) == len(parent) + 1 and p[:-1] == parent]
    for child in sorted(children, key=lambda prefix: (-counts[prefix], prefix)):
        width, depth = counts[child], len(child)
        shade = (*colours[child[0]][:3], 1.0 - 0.2 * (depth - 1))
        box = Rectangle((left, -depth), width, 1, facecolor=shade, edgecolor="white", linewidth=0.6)
        axes.add_patch(box)
        if width >= UPRIGHT * total:
            middle, turn = (left + width / 2, 0.5 - depth), 0 if width >= ACROSS * total else 90
            name = axes.text(*middle, child[-1], ha="center", va="center", rotation=turn)
            name.set(fontsize=7, clip_path=box, clip_on=True)
        _draw(axes, counts, child, left, total, colours)
        left += width
