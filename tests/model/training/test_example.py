import io
import json
import shlex
from dataclasses import replace

from rich.console import Console

from model.bundle import Bundle
from model.catalog import build_catalog
from model.training.example import example_history, show_example
from tests.model.training.evaluation.toy_bundle import ITEMS, toy_bundle

SHELL_ITEMS = tuple(f"it's [{name}] ü" for name in ITEMS)


def renamed_bundle() -> Bundle:
    """The toy bundle with ids, titles and categories full of quotes and brackets."""
    bundle = toy_bundle()
    titles = [f"[/red] {name}" for name in ITEMS[:-1]] + [""]
    paths = [[("Home", "[/b]")] for _ in ITEMS]
    return replace(bundle, catalog=build_catalog(SHELL_ITEMS, titles, paths, bundle.catalog.codes))


def test_the_call_can_be_pasted_and_names_are_no_markup() -> None:
    bundle = renamed_bundle()
    told = Console(file=io.StringIO(), width=200)
    show_example(bundle, told)
    assert isinstance(told.file, io.StringIO)
    text = told.file.getvalue()
    assert "[/red] a" in text
    assert "Home > [/b]" in text
    call = next(line for line in text.splitlines() if line.strip().startswith("curl"))
    body = json.loads(shlex.split(call)[-1])
    assert body["history"] == example_history(bundle)
