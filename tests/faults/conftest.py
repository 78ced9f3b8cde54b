import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from model.bundle import Bundle
from model.training.config import read_run_config
from model.training.pipeline import run_pipeline
from tests.bundles import SHOP
from tests.end_to_end.service_process import REPOSITORY
from tests.faults.findings import Findings

LOAD_AVERAGE = os.getloadavg()[0]
"""Of the last minute before any test, and before a bundle is trained for them."""


@pytest.fixture(scope="session")
def findings(request: pytest.FixtureRequest) -> Iterator[Findings]:
    """Written at the end of the run, also of one with failures."""
    tests = [f"{test.path.name}::{test.name}" for test in request.session.items]
    found = Findings(LOAD_AVERAGE, tests)
    yield found
    found.write(results_folder())


def results_folder() -> Path:
    return Path(os.environ.get("COFINE_TEST_RESULTS", REPOSITORY / "build" / "faults"))


@pytest.fixture(scope="session")
def items(shop_bundle: Path) -> list[str]:
    """All item ids of the shop."""
    catalog = Bundle.open(shop_bundle).catalog
    return [catalog.item_id(leaf) for leaf in range(len(catalog))]


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a shop with other items."""
    folder = tmp_path_factory.mktemp("other")
    toml = SHOP.replace("seed = 3", "seed = 4").replace("epochs = 3", "epochs = 1")
    (folder / "run.toml").write_text(toml, encoding="utf-8")
    run_pipeline(read_run_config(folder / "run.toml"), Console(quiet=True))
    return folder / "bundle"
