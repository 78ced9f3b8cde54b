#!/usr/bin/env python3
"""Writes the Grafana dashboards: `python docker/grafana/dashboards.py [FOLDER]`.

The JSON files beside Grafana's provisioning are its output and are never edited by hand. Every
query selects by the dashboard's variables and works for any number of instances.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import TypeAlias

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent / "dashboards"
SLOW_SECONDS = 0.1
"""The latency objective's threshold, as in docker/prometheus/rules.yml."""

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_HERE = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
"""What has no namespace, as with compose, matches the variable's `.*` too."""
_ROUTES = f'{_HERE}, route=~"$route"'
_RATE = "[$__rate_interval]"
_WIDTH = 24
_CIRCUIT_STATES = {"closed": 0, "half open": 1, "open": 2}

Panel: TypeAlias = timeseries.Panel | heatmap.Panel | stat.Panel
Query: TypeAlias = tuple[str, str]
"""PromQL and legend."""


def main() -> None:
    """Write every dashboard into the folder given, or where Grafana's provisioning reads it."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    text = json.dumps(_service().build(), cls=JSONEncoder, indent=2, sort_keys=True)
    (folder / "cofine.json").write_text(f"{text}\n", encoding="utf-8")


def _service() -> dashboard.Dashboard:
    board = (
        dashboard.Dashboard("Cofine")
        .uid("cofine")
        .description("The recommendation service: traffic, latency, quality, state, resources.")
        .tags(["cofine"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Source").type("prometheus")
        )
    )
    for name, series, label in (
        ("namespace", "cofine_build_info", "namespace"),
        ("job", 'cofine_build_info{namespace=~"$namespace"}', "job"),
        ("instance", 'cofine_build_info{namespace=~"$namespace", job=~"$job"}', "instance"),
        ("route", f"cofine_http_request_duration_seconds_count{{{_HERE}}}", "route"),
    ):
        board.with_variable(_variable(name, f"label_values({series}, {label})"))
    numbers = itertools.count(1)
    for title, panels in (
        ("Overview", _overview()),
        ("Traffic and errors", _traffic()),
        ("Latency", _latency()),
        ("Quality", _quality()),
        ("Click-through", _click_through()),
        ("Bundles", _bundles()),
        ("State", _state()),
        ("Access", _access()),
        ("Resources", _resources()),
    ):
        board.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            board.with_panel(panel.id(next(numbers)))
    return board


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    everything = VariableOption(text="All", value="$__all", selected=True)
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _overview() -> list[Panel]:
    slow = (
        f"1 - sum(rate(cofine_http_request_duration_seconds_bucket{{{_HERE}, "
        f'route="/v1/recommend", status="200", le="{SLOW_SECONDS}"}}{_RATE}))'
        f" / sum(rate(cofine_http_request_duration_seconds_count{{{_HERE}, "
        f'route="/v1/recommend", status="200"}}{_RATE}))'
    )
    return [
        _stat("Instances up", f"sum(up{{{_HERE}}})", "none"),
        _stat("Requests per second", f"sum({_rate(_requests())})", "reqps"),
        _stat("Unavailable", _errors(), "percentunit", red_from=0.001),
        _stat(f"Slower than {SLOW_SECONDS * 1000:.0f} ms", slow, "percentunit", red_from=0.01),
        _stat("Items", f"max(cofine_catalog_items{{{_HERE}}})", "short"),
        _stat(
            "Bundle loaded",
            f"time() - max(cofine_bundle_load_timestamp_seconds{{{_HERE}}})",
            "s",
        ),
    ]


def _traffic() -> list[Panel]:
    return [
        _lines(
            "Requests by route",
            "Requests per second, answered with whatever status.",
            "reqps",
            (f"sum by (route) ({_rate(_requests())})", "{{route}}"),
        ),
        _lines(
            "Requests by status",
            "",
            "reqps",
            (f"sum by (status) ({_rate(_requests())})", "{{status}}"),
        ),
        _lines(
            "Share of errors by route",
            "Answers with 5xx or 429 of all answers, but the 429 of a key's own limit; the "
            "objective allows 0.1 %.",
            "percentunit",
            (_errors("by (route) "), "{{route}}"),
        ),
        _lines(
            "Refused, out of time, abandoned",
            "429 because the queue was full; 504 and clients that left, by what they waited for.",
            "reqps",
            _by("cofine_admission_rejected_total", "reason", "refused: {{reason}}"),
            _by("cofine_deadline_exceeded_total", "stage", "out of time: {{stage}}"),
            _by("cofine_abandoned_total", "stage", "abandoned: {{stage}}"),
        ),
    ]


def _latency() -> list[Panel]:
    stages = "cofine_recommend_stage_duration_seconds"
    return [
        _heatmap(),
        *(
            _lines(
                f"p{percent} by route",
                "",
                "s",
                (
                    _quantile(percent, "route", "cofine_http_request_duration_seconds", _ROUTES),
                    "{{route}}",
                ),
            )
            for percent in (50, 95, 99)
        ),
        *(
            _lines(
                f"p{percent} by stage of a recommendation",
                "",
                "s",
                (
                    _quantile(percent, "stage", stages, _HERE),
                    "{{stage}}",
                ),
                (_quantile(percent, "", "cofine_queue_wait_seconds", _HERE), "queue"),
            )
            for percent in (50, 95, 99)
        ),
        _stacked(
            "Mean time by stage",
            "Of a recommendation that needed the stage.",
            "s",
            (
                f"sum by (stage) ({_rate(f'{stages}_sum{{{_HERE}}}')})"
                f" / sum by (stage) ({_rate(f'{stages}_count{{{_HERE}}}')})",
                "{{stage}}",
            ),
            (
                f"sum(rate(cofine_queue_wait_seconds_sum{{{_HERE}}}{_RATE}))"
                f" / sum(rate(cofine_queue_wait_seconds_count{{{_HERE}}}{_RATE}))",
                "queue",
            ),
        ),
    ]


def _quality() -> list[Panel]:
    answers = f"cofine_recommendations_total{{{_HERE}}}"
    generated = f'cofine_recommendations_total{{{_HERE}, source="generated"}}'
    return [
        _stacked(
            "Answers by source",
            "Where the best item of an answer comes from, as a share of all answers.",
            "percentunit",
            (
                f"sum by (source) ({_rate(answers)}) / scalar(sum({_rate(answers)}))",
                "{{source}}",
            ),
        ),
        _lines(
            "Certified share",
            "Of the generated answers, those proven to be the exact best items.",
            "percentunit",
            (
                f"sum(rate(cofine_certified_total{{{_HERE}}}{_RATE})) / sum({_rate(generated)})",
                "certified",
            ),
        ),
        _lines(
            "Degraded share by reason",
            "Answers made without something they should have used.",
            "percentunit",
            (
                f"sum by (reason) (rate(cofine_degraded_total{{{_HERE}}}{_RATE}))"
                f" / scalar(sum({_rate(answers)}))",
                "{{reason}}",
            ),
        ),
        _lines(
            "What the catalogue could not give",
            "Items of histories that it does not hold; answers with fewer items than asked.",
            "cps",
            (
                f"sum(rate(cofine_unknown_history_items_total{{{_HERE}}}{_RATE}))",
                "unknown history items",
            ),
            (f"sum(rate(cofine_beam_shortfall_total{{{_HERE}}}{_RATE}))", "short answers"),
        ),
        _lines(
            "Bundle in service",
            "Instances per bundle.",
            "none",
            (
                f"count by (bundle) (cofine_bundle_info{{{_HERE}}})",
                "{{bundle}}",
            ),
        ),
    ]


def _click_through() -> list[Panel]:
    return [
        _lines(
            "Click-through by rank",
            "Views that follow a recommendation, per item recommended at that rank.",
            "percentunit",
            (_per_impression("rank"), "rank {{rank}}"),
        ),
        _lines(
            "Click-through by source",
            "Views that follow a recommendation, per item recommended from that source.",
            "percentunit",
            (_per_impression("source"), "{{source}}"),
        ),
        _lines(
            "Events after a recommendation",
            "Per second, by what the user did; a dislike counts against it.",
            "cps",
            _by("cofine_attributed_events_total", "type", "{{type}}"),
        ),
        _lines(
            "Events without a recommendation",
            "Per second; none: the event names no recommendation.",
            "cps",
            _by("cofine_unattributed_events_total", "reason", "{{reason}}"),
        ),
    ]


def _per_impression(label: str) -> str:
    """Views of the items per recommendation of one, over an hour: a click comes later."""
    views = f'cofine_attributed_events_total{{{_HERE}, type="view"}}[1h]'
    shown = f"cofine_impressions_total{{{_HERE}}}[1h]"
    return f"sum by ({label}) (rate({views})) / sum by ({label}) (rate({shown}))"


def _state() -> list[Panel]:
    return [
        _lines(
            "Redis operations",
            "Per second, by outcome; miss is a user nobody knows, open is not tried at all.",
            "ops",
            (
                "sum by (op, outcome)"
                f" (rate(cofine_redis_operation_duration_seconds_count{{{_HERE}}}{_RATE}))",
                "{{op}} {{outcome}}",
            ),
        ),
        _lines(
            "p99 of Redis operations",
            "",
            "s",
            (
                _quantile(99, "op", "cofine_redis_operation_duration_seconds", _HERE),
                "{{op}}",
            ),
        ),
        _breaker(),
        _lines(
            "Events",
            "Per second, by what became of them; dropped ones were refused with 503.",
            "cps",
            _by("cofine_state_events_total", "outcome", "{{outcome}}"),
        ),
        _lines(
            "Event log",
            "Records per second; failed ones were refused with 503, dropped ones are lost.",
            "cps",
            (
                f"sum by (kind, outcome) (rate(cofine_event_log_records_total{{{_HERE}}}{_RATE}))",
                "{{kind}} {{outcome}}",
            ),
        ),
        _lines(
            "Event log in Redis",
            "Share of the records that a stream may hold; full, it loses the oldest.",
            "percentunit",
            (f"max by (stream) (cofine_event_log_fill_ratio{{{_HERE}}})", "{{stream}}"),
        ),
        _lines(
            "Event log: lost in Redis",
            "Records per second that a full stream lost before they were drained.",
            "cps",
            _by("cofine_event_log_pushed_out_total", "stream", "{{stream}}"),
        ),
        _lines(
            "Entries in memory://",
            "0 when the state is in Redis.",
            "short",
            (f"cofine_memory_state_entries{{{_HERE}}}", "{{instance}}"),
        ),
    ]


def _bundles() -> list[Panel]:
    answers = f"cofine_variant_answers_total{{{_HERE}}}"
    overlap = "cofine_shadow_overlap_ratio"
    return [
        _lines(
            "Answers by variant",
            "Per second, by the role of the bundle that served them.",
            "reqps",
            (f"sum by (variant) ({_rate(answers)})", "{{variant}}"),
        ),
        _lines(
            "p95 by variant",
            "Of whole recommendations.",
            "s",
            (_quantile(95, "variant", "cofine_variant_duration_seconds", _HERE), "{{variant}}"),
        ),
        _lines(
            "Answers by variant and source",
            "Per second; where the best item of an answer comes from.",
            "reqps",
            (f"sum by (variant, source) ({_rate(answers)})", "{{variant}} {{source}}"),
        ),
        _lines(
            "Shadow",
            "What became of the computations of a bundle that is compared and not served.",
            "reqps",
            _by("cofine_shadow_total", "outcome", "{{outcome}}"),
            (f"sum({_rate(f'{overlap}_count{{{_HERE}}}')})", "compared"),
        ),
        _lines(
            "Roles",
            "Instances per role and bundle.",
            "none",
            (
                f"count by (variant, bundle) (cofine_variant_bundle{{{_HERE}}})",
                "{{variant}} {{bundle}}",
            ),
        ),
        _lines(
            "Rollout",
            "The version that each instance follows; all the same but for a second after a change.",
            "none",
            (f"cofine_rollout_version{{{_HERE}}}", "{{instance}}"),
            (f"increase(cofine_rollout_failures_total{{{_HERE}}}[1h])", "failed on {{instance}}"),
        ),
        _lines(
            "Catalogue",
            "The version of the edits that each instance serves; all the same but for a second.",
            "none",
            (f"cofine_catalogue_version{{{_HERE}}}", "{{instance}}"),
            (
                f"increase(cofine_catalogue_failures_total{{{_HERE}}}[1h])",
                "failed on {{instance}}",
            ),
        ),
        _lines(
            "Edited items",
            "Items that have edits; at 10,000 of them no more are taken.",
            "short",
            (f"cofine_catalogue_edited_items{{{_HERE}}}", "{{instance}}"),
        ),
        _lines(
            "p95 of applying edits",
            "From reading edits to serving them.",
            "s",
            (
                _quantile(95, "instance", "cofine_catalogue_apply_duration_seconds", _HERE),
                "{{instance}}",
            ),
        ),
    ]


def _access() -> list[Panel]:
    return [
        _lines(
            "Refused callers",
            "401, 403, and the 429 of a key's own limit, by why.",
            "reqps",
            _by("cofine_access_refused_total", "reason", "{{reason}}"),
        ),
        _lines(
            "Keys in force",
            "0 where everybody may call.",
            "none",
            (f"cofine_api_keys{{{_HERE}}}", "{{instance}}"),
        ),
        _lines(
            "Keys and scenarios files, limits without Redis",
            "Changes of the files; requests that one replica alone counted.",
            "cps",
            _by("cofine_keys_reloads_total", "outcome", "keys file: {{outcome}}"),
            _by("cofine_scenarios_reloads_total", "outcome", "scenarios file: {{outcome}}"),
            (f"sum(rate(cofine_rate_limit_local_total{{{_HERE}}}{_RATE}))", "counted locally"),
        ),
    ]


def _resources() -> list[Panel]:
    return [
        _lines(
            "CPU",
            "Cores in use.",
            "none",
            (f"rate(process_cpu_seconds_total{{{_HERE}}}{_RATE})", "{{instance}}"),
        ),
        _lines(
            "Memory",
            "Resident; arrays of the bundle that are mapped count as far as they were read.",
            "bytes",
            (f"process_resident_memory_bytes{{{_HERE}}}", "{{instance}}"),
        ),
        _lines(
            "Requests in flight",
            "",
            "none",
            (f"cofine_http_requests_in_flight{{{_HERE}}}", "{{instance}}"),
        ),
        _lines(
            "Queue",
            "Requests waiting for a worker.",
            "none",
            (f"cofine_queue_length{{{_HERE}}}", "{{instance}}"),
        ),
        _lines(
            "Open files",
            "",
            "none",
            (f"process_open_fds{{{_HERE}}}", "{{instance}}"),
            (f"process_max_fds{{{_HERE}}}", "limit of {{instance}}"),
        ),
        _lines(
            "Time since start",
            "",
            "s",
            (f"time() - process_start_time_seconds{{{_HERE}}}", "{{instance}}"),
        ),
    ]


def _requests(more: str = "") -> str:
    return f"cofine_http_request_duration_seconds_count{{{_ROUTES}{more}}}"


def _rate(series: str) -> str:
    return f"rate({series}{_RATE})"


def _errors(by: str = "") -> str:
    """The share of errors among the answers; 0, not nothing, where there is none yet."""
    failed = _rate(f"cofine_http_unavailable_total{{{_ROUTES}}}")
    everything = f"sum {by}({_rate(_requests())})"
    return f"(sum {by}({failed}) or 0 * {everything}) / {everything}"


def _by(metric: str, label: str, legend: str) -> Query:
    return f"sum by ({label}) (rate({metric}{{{_HERE}}}{_RATE}))", legend


def _quantile(percent: int, label: str, histogram: str, selector: str) -> str:
    labels = f"le, {label}" if label else "le"
    buckets = f"rate({histogram}_bucket{{{selector}}}{_RATE})"
    return f"histogram_quantile({percent / 100}, sum by ({labels}) ({buckets}))"


def _query(expr: str, legend: str, format_: PromQueryFormat) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(_SOURCE)
        .expr(expr)
        .legend_format(legend)
        .format(format_)
        .range()
    )


def _lines(title: str, description: str, unit: str, *queries: Query) -> timeseries.Panel:
    """A panel of a third of the width with a line per series."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(_SOURCE)
        .unit(unit)
        .min(0)
        .span(_WIDTH // 3)
        .height(8)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    )
    for number, (expr, legend) in enumerate(queries):
        query = _query(expr, legend, PromQueryFormat.TIME_SERIES)
        panel.with_target(query.ref_id(chr(ord("A") + number)))
    return panel


def _stacked(title: str, description: str, unit: str, *queries: Query) -> timeseries.Panel:
    panel = _lines(title, description, unit, *queries)
    stacking = common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
    return panel.stacking(stacking).fill_opacity(40)


def _breaker() -> timeseries.Panel:
    expr = f"cofine_redis_circuit_state{{{_HERE}}}"
    panel = _lines("Circuit breaker of Redis", "", "none", (expr, "{{instance}}")).max(2)
    words = {str(value): ValueMappingResult(text=text) for text, value in _CIRCUIT_STATES.items()}
    return panel.mappings([ValueMap(words)]).line_interpolation(common.LineInterpolation.STEP_AFTER)


def _heatmap() -> heatmap.Panel:
    expr = f"sum by (le) (rate(cofine_http_request_duration_seconds_bucket{{{_ROUTES}}}{_RATE}))"
    return (
        heatmap.Panel()
        .title("Time to answer")
        .description("Requests per second and bucket.")
        .datasource(_SOURCE)
        .span(_WIDTH)
        .height(9)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_model.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .with_target(_query(expr, "{{le}}", PromQueryFormat.HEATMAP).ref_id("A"))
    )


def _stat(title: str, expr: str, unit: str, *, red_from: float | None = None) -> stat.Panel:
    """A sixth of the width with the newest value, red from `red_from` on."""
    steps = [Threshold(value=None, color="green")]
    if red_from is not None:
        steps.append(Threshold(value=red_from, color="red"))
    return (
        stat.Panel()
        .title(title)
        .datasource(_SOURCE)
        .unit(unit)
        .span(_WIDTH // 6)
        .height(4)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(_query(expr, "", PromQueryFormat.TIME_SERIES).ref_id("A"))
    )


if __name__ == "__main__":
    main()
