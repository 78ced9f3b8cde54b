"""The service answers real histories with the items that `evaluate` ranks first."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from model.bundle import Bundle
from model.query import Query
from model.recommender import Recommender
from model.training.evaluation.task import Choice, read_task
from tests.end_to_end.check_served import (
    Comparison,
    compare,
    complaints,
    expected_answer,
    histories,
    judge,
    main,
)
from tests.end_to_end.service_process import ServiceProcess, running_service


def check(found: Comparison, bundle: Path, *, users: int | None) -> None:
    wrong = complaints(found, bundle, split="test", users=users)
    assert not wrong, f"{len(wrong)} differences, first {wrong[:3]}"


def test_the_shop_is_served_as_evaluated(any_bundle: Path, shop_service: ServiceProcess) -> None:
    prepared = any_bundle.parent / "run" / "prepared"
    found = compare(any_bundle, prepared, shop_service.url, split="test", users=None)
    assert found.users == 600
    check(found, any_bundle, users=None)


def test_the_command_agrees(
    any_bundle: Path, shop_service: ServiceProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = any_bundle.parent / "run" / "prepared"
    arguments = [str(any_bundle), str(prepared), "--url", shop_service.url, "--users", "20"]
    assert main(arguments) == 0
    assert "20 users asked over HTTP, 0 answers differ" in capsys.readouterr().out


def test_other_answers_would_be_told(any_bundle: Path, shop: Bundle) -> None:
    prepared = any_bundle.parent / "run" / "prepared"
    task = read_task(prepared, shop.catalog, Choice("test", 2, 0, 0.2))
    recommender = Recommender(shop)
    expected = [expected_answer(recommender, leaves) for leaves in task.leaves]
    answers = [answer_of(recommender, asked) for asked in histories(task, prepared)]
    assert not judge(shop, task, answers, expected).differing
    assert len(judge(shop, task, answers[::-1], expected).differing) == 2
    answers[0]["items"][3]["score"] -= 0.01
    assert complaints(judge(shop, task, answers, expected), any_bundle, split="test", users=2)


def answer_of(recommender: Recommender, history: list[str]) -> dict[str, Any]:
    items = recommender.recommend(Query(history)).items
    return {"bundle": recommender.bundle.bundle_id, "items": [asdict(item) for item in items]}


@pytest.mark.real_data
@pytest.mark.parametrize("trained", ["magazines_bundle", "magazines_diffusion_bundle"])
def test_magazines_are_served_as_evaluated(
    trained: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    magazines_bundle: Path = request.getfixturevalue(trained)
    prepared = magazines_bundle.parent / "run" / "prepared"
    with running_service(magazines_bundle, tmp_path) as service:
        found = compare(magazines_bundle, prepared, service.url, split="test", users=None)
    assert found.users >= 200
    check(found, magazines_bundle, users=None)


@pytest.mark.real_data
def test_the_bundle_in_the_environment_is_served_as_evaluated(tmp_path: Path) -> None:
    bundle = os.environ.get("COFINE_TEST_BUNDLE")
    workspace = os.environ.get("COFINE_TEST_WORKSPACE")
    if not bundle or not workspace:
        pytest.skip("set COFINE_TEST_BUNDLE and COFINE_TEST_WORKSPACE to test a bundle of your own")
    with running_service(Path(bundle), tmp_path) as service:
        prepared = Path(workspace) / "prepared"
        found = compare(Path(bundle), prepared, service.url, split="test", users=200)
    check(found, Path(bundle), users=200)
