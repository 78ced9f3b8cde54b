"""Fixtures of the training half."""

import pytest

from tests.model.training.small_run import Folders, make_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The stages before training of a small shop; tests do not write into them."""
    return make_run(tmp_path_factory.mktemp("small_run"))
