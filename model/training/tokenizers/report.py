"""The tokenizer's report as a table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show_report(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what report.json holds: use of codes, fallbacks and collisions."""
    target = console or Console(stderr=True)
    table = Table(title="Levels of the semantic ID")
    for heading in ("level", "kind"):
        table.add_column(heading)
    for heading in ("codes", "used", "dead", "perplexity"):
        table.add_column(heading, justify="right")
    table.add_column("items by source")
    for level in report["levels"]:
        sources = report["fallbacks"].get(level["name"], {})
        table.add_row(
            level["name"],
            level["kind"],
            f"{level['codes']:,}",
            f"{level['used']:,}",
            f"{level['dead']:,}",
            f"{level['perplexity']:,.1f}",
            ", ".join(f"{name} {count:,}" for name, count in sources.items() if count),
        )
    target.print(table)
    collisions = report["collisions"]
    target.print(
        f"{collisions['items']:,} items, {collisions['distinct_ids']:,} semantic IDs; "
        f"{collisions['items_sharing_an_id']:,} items share {collisions['shared_ids']:,} of them, "
        f"at most {collisions['largest_bucket']:,} one ID"
    )
    if report["dropped_levels"]:
        target.print(f"dropped, no information: {', '.join(report['dropped_levels'])}")
