import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.bundle import Bundle
from tests.end_to_end.service_process import ServiceProcess, running_service
from tests.keys import write_keys


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shop_service(
    any_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """A service on the shop with its state in memory; tests use users of their own."""
    with running_service(any_bundle, tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="session")
def keyed_service(
    any_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """A service on the shop that asks for the keys of tests/keys.py.

    Its folder has two bundles, `first`, which it begins with, and `second`.
    """
    folder = tmp_path_factory.mktemp("keyed")
    bundles = folder / "bundles"
    for name in ("first", "second"):
        shutil.copytree(any_bundle, bundles / name)
    places = {"bundles": bundles, "keys": write_keys(folder)}
    with running_service(bundles / "first", folder, **places) as service:
        yield service


@pytest.fixture(scope="session")
def shop(any_bundle: Path) -> Bundle:
    """The shop's bundle, opened here, to compare with what is served."""
    return Bundle.open(any_bundle, threads=1)
