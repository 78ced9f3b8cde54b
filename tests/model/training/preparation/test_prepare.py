import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from model.errors import DataError
from model.training.preparation.prepare import PrepareConfig, PrepareReport, prepare, report_table
from model.training.preparation.splits import are_positions, leave_one_out
from tests.research_data import research_data

DAY = 86_400
START = 1_600_000_000

Row: TypeAlias = dict[str, Any]

ITEMS: list[Row] = [
    {
        "item_id": "c",
        "title": "Clock, wall",
        "categories": [["Home", "Clocks"], ["Gifts"]],
        "brand": "Tik",
        "description": 'The "quiet" one',
        "price": 9.5,
        "image": [1.0, 0.5],
    },
    {
        "item_id": "a",
        "title": " Apple ",
        "categories": [["Food", " Fruit ", ""], ["Food", "Fruit"]],
    },
    {"item_id": "b", "title": "", "categories": None, "brand": "   ", "price": 3.0},
]
EVENTS: list[Row] = [
    {"user_id": "u1", "item_id": "b", "timestamp": START + 3 * DAY, "type": "buy"},
    {"user_id": "u1", "item_id": "a", "timestamp": START + 1 * DAY, "type": "view"},
    {"user_id": "u1", "item_id": "c", "timestamp": START + 1 * DAY, "type": None},
    {"user_id": "u2", "item_id": "a", "timestamp": START + 2 * DAY, "type": "view"},
    {"user_id": "u2", "item_id": "c", "timestamp": START + 4 * DAY, "type": "view"},
]


def full_rows(rows: Sequence[Row]) -> list[Row]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def write_table(path: Path, rows: Sequence[Row]) -> Path:
    full = full_rows(rows)
    if path.suffix == ".parquet":
        pl.DataFrame(full, infer_schema_length=None).write_parquet(path)
    elif path.suffix == ".csv":
        flat = [
            {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in full
        ]
        pl.DataFrame(flat, infer_schema_length=None).write_csv(path)
    else:
        lines = [{k: v for k, v in row.items() if v is not None} for row in full]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


class Workbench:
    """Prepares rows given as dicts, in one format, and reads back what was written."""

    def __init__(self, folder: Path, suffix: str = ".parquet") -> None:
        self.items = folder / f"items{suffix}"
        self.events = folder / f"events{suffix}"
        self.output = folder / "prepared"

    def prepare(
        self,
        items: Sequence[Row] = ITEMS,
        events: Sequence[Row] = EVENTS,
        **settings: Any,
    ) -> PrepareReport:
        write_table(self.items, items)
        write_table(self.events, events)
        return self.prepare_files(**settings)

    def prepare_files(self, **settings: Any) -> PrepareReport:
        files = {"items": self.items, "events": self.events}
        return prepare(PrepareConfig.model_validate(files | settings), self.output)

    def read(self, name: str) -> list[Row]:
        return pl.read_parquet(self.output / f"{name}.parquet").to_dicts()

    def refusal(self, act: Callable[[], object]) -> str:
        with pytest.raises(DataError) as caught:
            act()
        assert not (self.output / "report.json").exists()
        return str(caught.value)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def long_history(user: str, count: int, items: str = "abc") -> list[Row]:
    return [
        {"user_id": user, "item_id": items[n % len(items)], "timestamp": START + n}
        for n in range(count)
    ]


# What is written


def test_items_are_ascending_with_clean_paths_and_empty_texts(bench: Workbench) -> None:
    bench.prepare(attributes={"price": "float"}, embeddings=["image"])

    assert bench.read("items") == [
        {
            "item_id": "a",
            "title": "Apple",
            "brand": "",
            "description": "",
            "categories": [["Food", "Fruit"]],
            "attribute_price": None,
            "embedding_image": None,
        },
        {
            "item_id": "b",
            "title": "",
            "brand": "",
            "description": "",
            "categories": [],
            "attribute_price": 3.0,
            "embedding_image": None,
        },
        {
            "item_id": "c",
            "title": "Clock, wall",
            "brand": "Tik",
            "description": 'The "quiet" one',
            "categories": [["Home", "Clocks"], ["Gifts"]],
            "attribute_price": 9.5,
            "embedding_image": [1.0, 0.5],
        },
    ]


def test_events_are_sorted_with_ties_in_input_order_and_split(bench: Workbench) -> None:
    bench.prepare()

    assert [(e["user_id"], e["item_id"], e["type"], e["split"]) for e in bench.read("events")] == [
        ("u1", "a", "view", "train"),
        ("u1", "c", "", "validation"),
        ("u1", "b", "buy", "test"),
        ("u2", "a", "view", "train"),
        ("u2", "c", "view", "train"),
    ]


def test_the_three_formats_give_the_same_folder(tmp_path: Path) -> None:
    folders = []
    for suffix in (".parquet", ".csv", ".jsonl", ".ndjson"):
        folder = tmp_path / suffix.removeprefix(".")
        folder.mkdir()
        bench = Workbench(folder, suffix)
        bench.prepare(attributes={"price": "float"}, embeddings=["image"])
        folders.append({path.name: path.read_bytes() for path in bench.output.iterdir()})
        assert sorted(p.name for p in bench.output.iterdir()) == [
            "events.parquet",
            "items.parquet",
            "report.json",
        ]

    assert folders[1:] == folders[:1] * 3


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_one_path_may_stand_without_its_list(tmp_path: Path, suffix: str) -> None:
    bench = Workbench(tmp_path, suffix)
    bench.prepare(
        [
            {"item_id": "a", "categories": ["Food", "Fruit"]},
            {"item_id": "b", "categories": []},
            {"item_id": "c", "categories": None},
        ]
    )

    assert [i["categories"] for i in bench.read("items")] == [[["Food", "Fruit"]], [], []]


def test_columns_are_renamed_and_several_files_are_one_table(tmp_path: Path) -> None:
    write_table(tmp_path / "i1.csv", [{"asin": "007", "name": "Seven"}])
    write_table(tmp_path / "i2.parquet", [{"asin": "b", "name": "B"}])
    write_table(
        tmp_path / "e.jsonl",
        [
            {"who": 5, "asin": asin, "when": START + n, "x": 1}
            for n, asin in enumerate(["b", "007", "b"])
        ],
    )
    bench = Workbench(tmp_path)
    report = bench.prepare_files(
        items=[tmp_path / "i1.csv", tmp_path / "i2.parquet"],
        events=tmp_path / "e.jsonl",
        item_columns={"item_id": "asin", "title": "name"},
        event_columns={"user_id": "who", "item_id": "asin", "timestamp": "when"},
    )

    assert report.items == 2
    assert [(i["item_id"], i["title"]) for i in bench.read("items")] == [
        ("007", "Seven"),
        ("b", "B"),
    ]
    assert [(e["user_id"], e["item_id"]) for e in bench.read("events")] == [
        ("5", "b"),
        ("5", "007"),
        ("5", "b"),
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_attributes_are_typed(tmp_path: Path, suffix: str) -> None:
    bench = Workbench(tmp_path, suffix)
    bench.prepare(
        [
            {"item_id": "a", "size": 3.0, "is_new": True, "colour": "red"},
            {"item_id": "b", "size": None, "is_new": False, "colour": " "},
            {"item_id": "c", "size": 12.0, "is_new": None, "colour": None},
        ],
        attributes={"size": "int", "is_new": "bool", "colour": "str"},
    )

    assert [
        (i["attribute_size"], i["attribute_is_new"], i["attribute_colour"])
        for i in bench.read("items")
    ] == [(3, True, "red"), (None, False, None), (12, None, None)]


@pytest.mark.parametrize(
    ("given_times", "expected"),
    [
        (["2020-09-13", "2020-09-13T12:26:40Z", "2020-09-13 14:26:41+02:00"], [-44_800, 0, 1]),
        (["2020-09-13T12:26:40.75", "2020-09-13T12:26:40.5", "1600000000"], [0, 0, 0]),
        ([START + 0.5, START + 0.25, START + 0.0], [0, 0, 0]),
        ([datetime(2020, 9, 13, 12, 26, s, tzinfo=UTC) for s in (40, 41, 42)], [0, 1, 2]),
    ],
)
def test_dates_and_fractions_become_seconds_but_order_at_full_resolution(
    bench: Workbench, given_times: list[Any], expected: list[int]
) -> None:
    events = [
        {"user_id": "u", "item_id": item, "timestamp": time}
        for item, time in zip("abc", given_times, strict=True)
    ]
    bench.prepare(events=events)
    written = bench.read("events")

    assert [e["timestamp"] - START for e in written] == sorted(expected)
    order = "".join(e["item_id"] for e in written)
    assert order == ("abc" if expected[-1] else "cba")


# What is counted


def test_missing_fields_are_counted(bench: Workbench) -> None:
    report = bench.prepare(attributes={"price": "float"}, embeddings=["image"])

    assert report.missing == {
        "title": 1,
        "brand": 2,
        "description": 2,
        "categories": 1,
        "attribute_price": 1,
        "embedding_image": 2,
        "type": 1,
    }
    assert (report.items_with_several_paths, report.deepest_path) == (1, 2)


def test_unknown_items_are_dropped_counted_and_named(bench: Workbench) -> None:
    unknown = [
        {"user_id": "u9", "item_id": item, "timestamp": START + n, "type": "view"}
        for n, item in enumerate(["x", "y", "y"])
    ]
    report = bench.prepare(events=EVENTS + unknown)

    assert (report.unknown_item_events, report.unknown_items) == (3, 2)
    assert report.unknown_item_examples == ("y", "x")
    assert (report.events, report.users) == (5, 2)


def test_exact_duplicate_events_are_dropped_and_counted(bench: Workbench) -> None:
    other_type = EVENTS[0] | {"type": "view"}
    report = bench.prepare(events=[*EVENTS, EVENTS[0], EVENTS[3], EVENTS[3], other_type])

    assert report.duplicate_events == 3
    assert report.events == 6


def test_dislikes_are_dropped_and_counted(bench: Workbench) -> None:
    without = bench.prepare(events=EVENTS)
    report = bench.prepare(events=[*EVENTS, EVENTS[0] | {"type": "dislike"}])

    assert (without.dislikes, report.dislikes) == (0, 1)
    assert report.events == without.events
    assert report.duplicate_events == without.duplicate_events


def test_exact_duplicate_items_are_dropped_and_counted(bench: Workbench) -> None:
    report = bench.prepare([*ITEMS, ITEMS[0], ITEMS[2]])

    assert (report.items, report.duplicate_items) == (3, 2)


def test_items_without_events_are_counted(bench: Workbench) -> None:
    assert bench.prepare([*ITEMS, {"item_id": "z"}]).items_without_events == 1


def test_users_with_too_little_history_are_train_only_and_counted(bench: Workbench) -> None:
    events = long_history("u1", 2) + long_history("u2", 3) + long_history("u3", 5)
    report = bench.prepare(events=events, min_history=2)

    assert report.users_with_too_little_history == 2
    assert report.split_events == {"train": 8, "validation": 1, "test": 1}
    assert {e["user_id"] for e in bench.read("events") if e["split"] != "train"} == {"u3"}


def test_the_report_file_holds_the_report_and_the_table_shows_every_count(bench: Workbench) -> None:
    report = bench.prepare()
    text = (bench.output / "report.json").read_text(encoding="utf-8")
    console = Console(width=100, record=True, file=(bench.output / "console.txt").open("w"))
    with console.file:
        console.print(report_table(report))

    assert PrepareReport.model_validate_json(text) == report
    shown = console.export_text()
    for name in PrepareReport.model_fields:
        assert name.replace("_", " ") in shown


# Splits


@settings(deadline=None)  # the first call starts polars
@given(counts=st.lists(st.integers(1, 8), min_size=1, max_size=6), min_history=st.integers(1, 3))
def test_leave_one_out_holds_out_the_last_two_of_long_histories_only(
    counts: list[int], min_history: int
) -> None:
    rows = [(f"u{user}", n) for user, count in enumerate(counts) for n in range(count)]
    events = pl.LazyFrame(rows, schema=["user_id", "n"], orient="row")
    split = leave_one_out(events, min_history).collect()

    assert split["n"].to_list() == [n for _, n in rows]
    for user, count in enumerate(counts):
        labels = split.filter(pl.col("user_id") == f"u{user}")["split"].to_list()
        held_out = ["validation", "test"] if count >= min_history + 2 else []
        assert labels == ["train"] * (count - len(held_out)) + held_out


def test_a_split_by_time_labels_each_event_by_its_own_time(bench: Workbench) -> None:
    report = bench.prepare(split="time", validation_from=START + 2 * DAY, test_from=START + 4 * DAY)

    assert [(e["item_id"], e["split"]) for e in bench.read("events")] == [
        ("a", "train"),
        ("c", "train"),
        ("b", "validation"),
        ("a", "validation"),
        ("c", "test"),
    ]
    assert report.users_with_too_little_history == 1  # u2 has no training event
    assert (report.validation_from, report.test_from) == (START + 2 * DAY, START + 4 * DAY)


def test_a_split_by_time_takes_dates_or_fractions(bench: Workbench) -> None:
    dates = bench.prepare(
        split="time",
        validation_from=datetime.fromtimestamp(START + 2 * DAY, UTC),
        test_from=datetime.fromtimestamp(START + 4 * DAY, UTC).replace(tzinfo=None),
    )
    fractions = bench.prepare(
        events=long_history("u", 100), split="time", validation_fraction=0.2, test_fraction=0.1
    )

    assert (dates.validation_from, dates.test_from) == (START + 2 * DAY, START + 4 * DAY)
    assert fractions.split_events["train"] == pytest.approx(70, abs=1)
    assert fractions.split_events["test"] == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1, 2, 3], True),
        ([1, 2, 3], True),
        ([5, 17, 9_999], True),
        ([START, START + 1, START + 2], False),
        ([18_000, 18_001], False),  # days since 1970
    ],
)
def test_positions_are_told_from_times(times: list[int], expected: bool) -> None:
    events = pl.LazyFrame({"user_id": ["u"] * len(times), "timestamp": times})
    assert are_positions(events) is expected


def test_a_split_by_time_is_refused_on_positions(bench: Workbench) -> None:
    positions = [e | {"timestamp": n} for n, e in enumerate(long_history("u", 9))]
    message = bench.refusal(lambda: bench.prepare(events=positions, split="time"))

    assert "events.parquet" in message
    assert "'timestamp'" in message
    assert "leave_one_out" in message
    assert bench.prepare(events=positions).timestamps_are_positions


def test_an_empty_split_is_refused(bench: Workbench) -> None:
    short = bench.refusal(lambda: bench.prepare(events=EVENTS[3:]))
    late = bench.refusal(
        lambda: bench.prepare(split="time", validation_from=START * 2, test_from=START * 3)
    )

    assert "validation split has no event" in short
    assert "no user has 3 events" in short
    assert str(START * 2) in late


# What stops


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("bad", "settings", "named"),
    [
        ({"item_id": ""}, {}, ["'item_id'", "is empty", "remove the row"]),
        ({"item_id": None, "title": "No id"}, {}, ["'item_id'", "is empty"]),
        (
            {"item_id": "x", "price": "cheap"},
            {"attributes": {"price": "float"}},
            ["'price'", "'cheap'", "is not of type float"],
        ),
        (
            {"item_id": "x", "price": "3.5"},
            {"attributes": {"price": "int"}},
            ["'price'", "'3.5'", "is not of type int"],
        ),
        ({"item_id": "x", "categories": "Food > Fruit"}, {}, ["'categories'", "'Food > Fruit'"]),
        ({"item_id": "x", "categories": '["Food", }]'}, {}, ["'categories'", '["Food"']),
        (
            {"item_id": "x", "image": "[1.0]"},
            {"embeddings": ["image"]},
            ["'image'", "has 1 numbers", "has 2"],
        ),
        (
            {"item_id": "x", "image": "[1.0, null]"},
            {"embeddings": ["image"]},
            ["'image'", "not all finite"],
        ),
        ({"item_id": "a", "title": "Other"}, {}, ["'item_id'", "'a'", "row 1", "keep one"]),
    ],
)
def test_an_unusable_item_is_named_by_file_row_and_column(
    tmp_path: Path, suffix: str, bad: Row, settings: Row, named: list[str]
) -> None:
    bench = Workbench(tmp_path, suffix)
    good: list[Row] = [
        {"item_id": "a", "title": "A", "categories": '["Food"]', "price": "3", "image": "[1, 2]"},
        {"item_id": "b", "title": "B"},
    ]
    message = bench.refusal(lambda: bench.prepare([*good, bad], **settings))

    for part in (str(bench.items), "row 3", *named):
        assert part in message


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"user_id": "u", "item_id": "a", "timestamp": None}, ["'timestamp'", "Unix seconds"]),
        ({"user_id": "u", "item_id": "a", "timestamp": "soon"}, ["'timestamp'", "'soon'"]),
        ({"user_id": "u", "item_id": "a", "timestamp": "2020-13-01"}, ["'2020-13-01'"]),
        ({"user_id": " ", "item_id": "a", "timestamp": "1"}, ["'user_id'", "is empty"]),
        ({"user_id": "u", "item_id": None, "timestamp": "1"}, ["'item_id'", "is empty"]),
    ],
)
def test_an_unusable_event_is_named_by_file_row_and_column(
    tmp_path: Path, suffix: str, bad: Row, named: list[str]
) -> None:
    bench = Workbench(tmp_path, suffix)
    good = {"user_id": "u", "item_id": "a", "timestamp": "1600000000"}
    message = bench.refusal(lambda: bench.prepare(events=[good, good, bad, good, bad]))

    for part in (str(bench.events), "row 3", *named):
        assert part in message


def test_a_missing_column_is_named_with_those_there_are(bench: Workbench) -> None:
    events = [{"user": "u", "item_id": "a", "timestamp": START}]
    message = bench.refusal(lambda: bench.prepare(events=events))
    renamed = bench.refusal(lambda: bench.prepare(item_columns={"title": "name"}))

    for part in ("events.parquet", "'user_id'", "'user'", "event_columns"):
        assert part in message
    for part in ("items.parquet", "'name'", "'title'", "item_columns"):
        assert part in renamed


def test_files_that_are_no_tables_are_refused(bench: Workbench, tmp_path: Path) -> None:
    bench.prepare()
    contents = {
        "a.xlsx": b"PK",
        "b.csv": b"",
        "c.csv": b"item_id,title\nx,X\ny,Y,Z\n",
        "d.jsonl": b'{"item_id": "x"}\n{"item_id": "y"\n',
        "e.parquet": b"no parquet at all",
        "f.csv": b"item_id\nx\n\xff\xfe\n",
        "g.csv": b'item_id,title\nx,X\ny,"Y\nz,Z\n',
        "h.jsonl": b'{"item_id": "x"}\n{"item_id": "\xff"}\n',
        "i.csv": b"item_id,title\n",
    }
    expected = {
        "a.xlsx": [".parquet, .csv, .jsonl, .ndjson"],
        "b.csv": ["empty"],
        "c.csv": ["row 2"],
        "d.jsonl": ["row 2"],
        "e.parquet": ["cannot be read"],
        "f.csv": ["row 2 cannot be read"],
        "g.csv": ["row 2 cannot be read"],
        "h.jsonl": ["row 2 cannot be read"],
        "i.csv": ["there is no item; give at least one row"],
        "missing.csv": ["no such file"],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name, parts in expected.items():
        path = tmp_path / name
        message = bench.refusal(lambda path=path: bench.prepare_files(items=path))  # type: ignore[misc]
        for part in (str(path), *parts):
            assert part in message


def test_columns_of_a_wrong_type_are_refused(bench: Workbench) -> None:
    for bad, column in (
        ({"item_id": 1.5}, "item_id"),
        ({"item_id": "a", "title": ["A", "B"]}, "title"),
        ({"item_id": "a", "categories": 7}, "categories"),
    ):
        message = bench.refusal(lambda bad=bad: bench.prepare([bad]))  # type: ignore[misc]
        assert f"column {column!r} has type" in message


def test_no_event_left_is_refused_with_the_reason(bench: Workbench) -> None:
    message = bench.refusal(lambda: bench.prepare([{"item_id": "z"}]))

    for part in ("events.parquet", "items.parquet", "no event is left", "5", "'a'"):
        assert part in message
    assert "('a'" not in message  # a list for people, not Python's


def test_no_event_at_all_is_refused(bench: Workbench) -> None:
    table = bench.output.parent / "none.csv"
    table.write_text("user_id,item_id,timestamp\n")
    write_table(bench.items, ITEMS)
    message = bench.refusal(lambda: bench.prepare_files(events=table))

    assert message == f"{table}: there is no event; give at least one row"


def test_names_of_items_are_no_markup_in_the_table(bench: Workbench) -> None:
    strange = EVENTS[0] | {"item_id": "x [/red]"}
    report = bench.prepare(events=[*EVENTS, strange])
    console = Console(width=100, record=True, file=(bench.output / "console.txt").open("w"))
    with console.file:
        console.print(report_table(report))

    assert "x [/red]" in console.export_text()


def test_an_older_report_does_not_survive_a_failure(bench: Workbench) -> None:
    bench.prepare()
    bench.refusal(lambda: bench.prepare(events=[EVENTS[0] | {"user_id": ""}]))

    assert not list(bench.output.glob(".partial-*"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"item_columns": {"titel": "name"}}, "titel"),
        ({"event_columns": {"time": "when"}}, "timestamp"),
        ({"split": "time", "test_from": 5}, "validation_from"),
        ({"validation_from": 4, "test_from": 5}, "split"),
        ({"attributes": {"price": "decimal"}}, "price"),
        ({"colour": 1}, "colour"),
        ({"items": []}, "items"),
    ],
)
def test_contradictory_settings_are_refused(settings: Row, named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        PrepareConfig.model_validate({"items": "i.csv", "events": "e.csv"} | settings)


# Real data


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "items", "users", "events", "is_positions"),
    [
        ("amazon-beauty-2014", 12_101, 22_363, 198_502, True),
        ("amazon-toys-2014", 11_924, 19_412, 167_597, True),
        ("amazon-magazines-2018", 157, 348, 2_328, False),
    ],
)
def test_real_data_is_counted_as_its_readme_says(
    tmp_path: Path, name: str, items: int, users: int, events: int, is_positions: bool
) -> None:
    folder = research_data(name)
    bench = Workbench(tmp_path)
    report = bench.prepare_files(
        items=folder / "items.parquet", events=folder / "interactions.parquet"
    )

    assert (report.items, report.users, report.events) == (items, users, events)
    assert report.split_events == {
        "train": events - 2 * users,
        "validation": users,
        "test": users,
    }
    assert (report.unknown_item_events, report.duplicate_events, report.duplicate_items) == (
        0,
        0,
        0,
    )
    assert report.items_without_events == 0
    assert report.timestamps_are_positions is is_positions


@pytest.mark.real_data
def test_real_paths_keep_their_order_with_the_first_as_primary(tmp_path: Path) -> None:
    folder = research_data("amazon-beauty-2014")
    bench = Workbench(tmp_path)
    report = bench.prepare_files(
        items=folder / "items.parquet",
        events=folder / "interactions.parquet",
        item_columns={"categories": "all_categories"},
    )
    source = pl.read_parquet(folder / "items.parquet").sort("item_id")
    written = pl.read_parquet(bench.output / "items.parquet")

    assert report.items_with_several_paths > 0
    first = pl.col("categories").list.first()
    assert written.select(first).to_series().to_list() == [
        paths[0] for paths in source["all_categories"].to_list()
    ]


@pytest.mark.parametrize("name", ["text", "collaborative"])
def test_an_embedding_may_not_be_called_as_a_view_is(name: str) -> None:
    with pytest.raises(ValidationError, match=f"my_{name} = "):
        PrepareConfig(items=(Path("i.csv"),), events=(Path("e.csv"),), embeddings=(name,))

    other = PrepareConfig(
        items=(Path("i.csv"),),
        events=(Path("e.csv"),),
        embeddings=(f"my_{name}",),
        item_columns={f"my_{name}": name},
    )
    assert other.embeddings == (f"my_{name}",)
