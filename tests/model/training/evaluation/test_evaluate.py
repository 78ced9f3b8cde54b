import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import log_softmax

from model.bundle import Bundle
from model.errors import ConfigError, DataError
from model.evidence import SCALE
from model.query import Query
from model.recommender import Recommender
from model.training.evaluation.evaluate import (
    GENERATOR,
    ITEM_HEAD,
    NEIGHBOURS,
    ORACLE,
    POPULARITY,
    SERVED,
    EvaluateConfig,
    by_fused,
    exhaustive_limit,
    measure,
    popular_leaves,
)
from model.training.evaluation.metrics import summary
from model.training.evaluation.report import Evaluation, write_evaluation
from tests.model.training.evaluation.toy_bundle import ITEMS, toy_bundle

USERS = 30


@pytest.fixture
def bundle() -> Bundle:
    return toy_bundle()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Users with 1 to 5 training events, and a user whose first event of all is the test target."""
    generator = np.random.default_rng(5)
    events = []
    for user in range(USERS):
        items = generator.choice(list(ITEMS[:11]), size=3 + user % 5)
        splits = ["train"] * (len(items) - 2) + ["validation", "test"]
        events += [(f"u{user:02}", item, split) for item, split in zip(items, splits, strict=True)]
    events.append(("z-new", "l", "test"))
    return write_prepared(tmp_path / "prepared", events)


def write_prepared(folder: Path, events: list[tuple[str, str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    pl.DataFrame({"item_id": list(ITEMS)}).write_parquet(folder / "items.parquet")
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "split"], orient="row")
    frame.write_parquet(folder / "events.parquet")
    (folder / "report.json").write_text("{}")
    return folder


def questions(prepared: Path) -> list[tuple[list[int], int]]:
    """History and target of each user's test event, as positions in ITEMS."""
    events = pl.read_parquet(prepared / "events.parquet").rows()
    sequences = [
        [ITEMS.index(item) for _, item, _ in own]
        for _, own in itertools.groupby(events, key=lambda event: event[0])
    ]
    return [(items[:-1], items[-1]) for items in sequences]


def exact_log_probs(bundle: Bundle, history: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Every item's log-probability and item-head score, worked out from the definition."""
    vectors, biases, trie = bundle.tree.vectors, bundle.tree.biases, bundle.tree.trie
    h = bundle.tree.item_vectors[history[-1]].astype(np.float16).astype(np.float32)
    totals, evidence = np.zeros(len(ITEMS)), np.zeros(trie.node_count)
    *betas, own = bundle.manifest.score.evidence_weights
    # The toy reads so many items of a history.
    newest = history[-bundle.manifest.history_length :]
    for leaf, amount in zip(*bundle.transitions.evidence(np.array(newest)), strict=True):
        evidence[trie.paths(np.array([leaf]))[0]] += amount
    logs = np.log1p(evidence / SCALE)
    for leaf, path in enumerate(trie.paths(np.arange(len(ITEMS)))):
        for beta, (parent, child) in zip(betas, itertools.pairwise(path), strict=True):
            children = np.arange(trie.child_start[parent], trie.child_start[parent + 1])
            log_probs = log_softmax(
                vectors[children] @ h + biases[children] + beta * logs[children]
            )
            totals[leaf] += log_probs[child - children[0]]
    return totals, bundle.tree.item_vectors @ h + own * logs[trie.item_start :]


def rank_of(scores: np.ndarray, target: int, hidden: list[int]) -> int:
    ranked = [leaf for leaf in np.argsort(-scores, kind="stable") if leaf not in hidden]
    return ranked.index(target) + 1 if target in ranked else 0


def config(**changes: object) -> EvaluateConfig:
    return EvaluateConfig.model_validate({"threads": 1} | changes)


@pytest.mark.parametrize("seen_masked", [True, False])
def test_bundle_rows_equal_the_definition_of_each_score(
    bundle: Bundle, prepared: Path, *, seen_masked: bool
) -> None:
    evaluation = measure(config(), bundle, prepared)
    expected: dict[str, list[int]] = {GENERATOR: [], ITEM_HEAD: [], SERVED: []}
    for history, target in questions(prepared):
        if not history:
            expected[GENERATOR].append(0)
            expected[ITEM_HEAD].append(0)
            expected[SERVED].append(rank_of(bundle.popularity, target, []))
            continue
        log_probs, affinities = exact_log_probs(bundle, history)
        hidden = history if seen_masked else []
        weight = bundle.manifest.score.fusion_weight
        expected[GENERATOR].append(rank_of(log_probs, target, hidden))
        expected[ITEM_HEAD].append(rank_of(affinities, target, hidden))
        served = log_probs + weight * affinities
        served[history] += bundle.manifest.score.repeat_bonus()
        expected[SERVED].append(rank_of(served, target, hidden))
    for name, ranks in expected.items():
        row = evaluation.row(name, seen_masked=seen_masked)
        assert row.metrics == pytest.approx(summary(np.array(ranks)))
    assert evaluation.users == USERS + 1
    assert evaluation.users_without_history == 1


def test_served_list_is_what_the_recommender_answers(bundle: Bundle, prepared: Path) -> None:
    recommender = Recommender(bundle)
    for history, _ in questions(prepared):
        ids = [ITEMS[leaf] for leaf in history]
        answer = recommender.recommend(Query(ids, k=5, exclude_seen=True)).items
        leaves = np.array(history, np.int64)
        if not history:
            served = popular_leaves(recommender)
        else:
            with recommender.reading(leaves) as h:
                found = recommender.search(h, bundle.manifest.beam_width, excluded=leaves)
                served = by_fused(recommender, h, found, leaves)
        assert [ITEMS[leaf] for leaf in served[:5]] == [item.item_id for item in answer]


def test_threads_change_nothing(bundle: Bundle, prepared: Path) -> None:
    alone, shared = (measure(config(threads=threads), bundle, prepared) for threads in (1, 3))
    assert alone.rows == shared.rows
    assert alone.search_error == shared.search_error


def test_narrow_beam_errs_and_a_wide_one_does_not(bundle: Bundle, prepared: Path) -> None:
    wide = measure(config(), bundle, prepared).search_error
    assert [error.name for error in wide] == [GENERATOR, SERVED]
    assert all(error.users == USERS for error in wide)
    assert all(error.top_10_differs == 0 and error.relative_loss == 0 for error in wide)
    narrow = measure(config(beam_width=2), bundle, prepared)
    assert all(error.top_10_differs == 1 for error in narrow.search_error)
    assert narrow.search_error[0].ndcg_exhaustive == wide[0].ndcg_exhaustive
    assert narrow.search_error[0].ndcg_beam < wide[0].ndcg_beam
    assert narrow.row(GENERATOR).listed == 2
    assert narrow.row(GENERATOR).short_lists == USERS + 1
    assert measure(config(exhaustive_users=0), bundle, prepared).search_error == []


def test_exhaustive_search_is_left_out_where_it_costs_too_much(
    bundle: Bundle, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # depth 0: 1 node x 3; depth 1: 3 x 3; depth 2: 9 x 2; six numbers per vector
    monkeypatch.setattr("model.training.evaluation.evaluate.EXHAUSTIVE_CELLS", 7 * 6 * (3 + 9 + 18))
    assert exhaustive_limit(bundle) == 7
    errors = measure(config(), bundle, prepared).search_error
    assert [error.users for error in errors] == [7, 7]
    monkeypatch.setattr("model.training.evaluation.evaluate.EXHAUSTIVE_CELLS_AT_ONCE", 6 * 18 - 1)
    assert measure(config(), bundle, prepared).search_error == []


def test_popularity_is_ranked_by_training_events(bundle: Bundle, prepared: Path) -> None:
    evaluation = measure(config(), bundle, prepared)
    events = pl.read_parquet(prepared / "events.parquet").filter(pl.col("split") == "train")
    counts = np.array([(events["item_id"] == item).sum() for item in ITEMS])
    asked = questions(prepared)
    for seen_masked in (True, False):
        ranks = [rank_of(counts, target, past if seen_masked else []) for past, target in asked]
        row = evaluation.row(POPULARITY, seen_masked=seen_masked)
        assert row.metrics == pytest.approx(summary(np.array(ranks)))
    assert evaluation.row(NEIGHBOURS).metrics["mrr"] > 0


def test_slices_add_up_to_all_users(bundle: Bundle, prepared: Path) -> None:
    for row in measure(config(), bundle, prepared).rows:
        parts = row.slices.values()
        assert sum(part.users for part in parts) == USERS + 1
        total = sum(part.users * part.metrics.get("ndcg@10", 0) for part in parts)
        assert total / (USERS + 1) == pytest.approx(row.metrics["ndcg@10"])
        assert row.slices["cold"].users == 1  # "l" has no training event


def test_perfect_oracle_finds_every_target_that_may_be_listed(
    bundle: Bundle, prepared: Path, tmp_path: Path
) -> None:
    events = pl.read_parquet(prepared / "events.parquet").filter(pl.col("split") == "test")
    path = tmp_path / "oracle.parquet"
    oracle = events.select("user_id", ranking=pl.concat_list("item_id"))
    oracle.write_parquet(path)
    evaluation = measure(config(oracle=path), bundle, prepared)
    assert evaluation.row(ORACLE, seen_masked=False).metrics["ndcg@10"] == 1
    fresh = np.mean([target not in history for history, target in questions(prepared)])
    assert evaluation.row(ORACLE).metrics["recall@5"] == pytest.approx(fresh)

    with pytest.raises(ConfigError, match="last event"):
        measure(config(oracle=path, split="validation"), bundle, prepared)
    oracle.head(3).write_parquet(path)
    with pytest.raises(DataError, match="no answer for user_id"):
        measure(config(oracle=path), bundle, prepared)
    oracle.rename({"ranking": "items"}).write_parquet(path)
    with pytest.raises(DataError, match=r"oracle\.parquet cannot be read"):
        measure(config(oracle=path), bundle, prepared)


def test_bundle_that_has_seen_the_targets_says_so(bundle: Bundle, prepared: Path) -> None:
    assert not any("retrained on all" in note for note in measure(config(), bundle, prepared).notes)
    refit = replace(bundle, manifest=bundle.manifest.model_copy(update={"facts": {"refit": True}}))
    assert "retrained on all events" in measure(config(), refit, prepared).notes[0]


def test_sample_and_split_are_chosen(bundle: Bundle, prepared: Path, tmp_path: Path) -> None:
    evaluation = measure(config(split="validation", users=4), bundle, prepared)
    assert (evaluation.split, evaluation.users, evaluation.users_in_split) == ("validation", 4, 30)
    assert evaluation.bundle == "toy"
    write_evaluation(evaluation, tmp_path)
    read = json.loads((tmp_path / "evaluation.json").read_text())
    assert Evaluation.model_validate(read) == evaluation
