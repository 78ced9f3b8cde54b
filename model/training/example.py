"""One recommendation, shown to a person, and the HTTP call that gives the same."""

import json
import shlex

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.bundle import Bundle
from model.query import Query
from model.recommender import Recommender
from model.types import ItemId

HISTORY_LENGTH = 3
ADDRESS = "http://127.0.0.1:8000"


def show_example(bundle: Bundle, console: Console) -> None:
    """Recommend for a made-up visitor and print the call with curl."""
    history = example_history(bundle)
    answer = Recommender(bundle).recommend(Query(history, k=5))
    console.print("\nSomebody looked at")
    for item_id in history:
        leaf = bundle.catalog.known_leaf(item_id)
        path = escape(" > ".join(bundle.catalog.path(leaf)))
        console.print(f"  {escape(bundle.catalog.title(leaf) or item_id)}  [dim]{path}[/dim]")
    table = Table("", "next", "path", "score", title="and is recommended", title_justify="left")
    for item in answer.items:
        shown = (escape(item.title or item.item_id), escape(" > ".join(item.path)))
        table.add_row(str(item.rank), *shown, f"{item.score:.2f}")
    console.print(table)
    body = shlex.quote(json.dumps({"history": list(history), "k": 5}, ensure_ascii=False))
    console.print("\nThe same over HTTP, once the service runs:\n", style="bold")
    call = f"curl -s {ADDRESS}/v1/recommend -H 'content-type: application/json' -d {body}"
    console.print(f"  {call}\n", soft_wrap=True, markup=False, highlight=False)
    console.print(f"In the browser: {ADDRESS}\n", highlight=False)


def example_history(bundle: Bundle) -> list[ItemId]:
    """The most popular item and before it the items most like it: a visitor with one interest."""
    vectors = bundle.tree.item_vectors
    newest = int(np.argmax(bundle.popularity))
    norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    likeness = vectors @ vectors[newest] / norms
    likeness[newest] = np.inf
    nearest = np.argsort(-likeness, kind="stable")[:HISTORY_LENGTH]
    return [bundle.catalog.item_id(int(leaf)) for leaf in nearest[::-1]]
