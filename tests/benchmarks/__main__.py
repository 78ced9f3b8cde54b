"""`python -m tests.benchmarks PART`: measure, and write JSON, Markdown and a plot."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from model.training.pipeline import Workspace
from tests.benchmarks import catalogue_size, http_speed, model_speed, plots, sizing

PARTS = ("model", "sizes", "filters", "http", "sizing", "users")


def main() -> None:
    """Run one part, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/beauty"))
    parser.add_argument("--workspace", type=Path, default=Path("runs/beauty"))
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--items", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--core-hour", type=float, default=0.05, help="price of a core's hour")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        before = os.getloadavg()[0]
        result, markdown = _run(part, options)
        result["load_average"] = [before, os.getloadavg()[0]]
        loads = f"Load average {before:.1f} before, {result['load_average'][1]:.1f} after.\n"
        (options.output / f"{part}.json").write_text(json.dumps(result, indent=1))
        (options.output / f"{part}.md").write_text(f"{markdown}\n{loads}")
        Console().print(markdown, loads, sep="\n", markup=False, soft_wrap=True)
        plots.draw(part, result, options.output / f"{part}.png")


def _run(part: str, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if part == "model":
        stages = Workspace(options.workspace).stages()
        result = model_speed.measure(options.bundle, stages, rounds=options.rounds)
        return result, model_speed.table(result)
    if part == "sizes":
        result = catalogue_size.measure(options.items, options.output, rounds=options.rounds)
        return result, catalogue_size.table(result)
    if part == "filters":
        result = catalogue_size.measure_filters(options.output, rounds=options.rounds)
        return result, catalogue_size.filter_table(result)
    if part == "users":
        result = sizing.measure_users(options.bundle, options.output)
        return result, sizing.users_table(result)
    if part == "sizing":
        result = sizing.measure(options.bundle, options.output)
        return result, sizing.table(result, options.core_hour)
    result = http_speed.measure(options.bundle, options.output)
    return result, http_speed.table(result)


if __name__ == "__main__":
    main()
