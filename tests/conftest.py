"""Fixtures that several parts of the suite share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.made_once import made_once

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# The networks here are tiny: threads that wait for one another only make them slower, and several
# times so on a machine with other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long one example takes is a matter of the machine, and of what else it does.
settings.register_profile("cofine", deadline=None)
settings.load_profile("cofine")


@pytest.fixture(scope="session")
def shop_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of a small synthetic shop; its workspace is `run` beside it."""
    from tests.bundles import make_shop_bundle

    return made_once(tmp_path_factory, "shop", make_shop_bundle) / "bundle"


@pytest.fixture(scope="session")
def diffusion_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of the same shop with a masked-diffusion decoder."""
    from tests.bundles import make_diffusion_bundle

    return made_once(tmp_path_factory, "diffusion", make_diffusion_bundle) / "bundle"


@pytest.fixture(scope="session", params=["shop_bundle", "diffusion_bundle"])
def any_bundle(request: pytest.FixtureRequest) -> Path:
    """The shop's bundle of either decoder."""
    bundle: Path = request.getfixturevalue(request.param)
    return bundle


@pytest.fixture(scope="session")
def magazines_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of the Magazines dataset; its workspace is `run` beside it."""
    from tests.bundles import make_magazines_bundle

    return made_once(tmp_path_factory, "magazines", make_magazines_bundle) / "bundle"


@pytest.fixture(scope="session")
def magazines_diffusion_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of the same dataset with a masked-diffusion decoder."""
    from tests.bundles import make_magazines_diffusion_bundle

    made = made_once(tmp_path_factory, "magazines-diffusion", make_magazines_diffusion_bundle)
    return made / "bundle"


@pytest.fixture(scope="session")
def cold_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of a shop that has never sold some of its items."""
    from tests.bundles import make_cold_bundle

    return made_once(tmp_path_factory, "cold", make_cold_bundle) / "bundle"


@pytest.fixture(scope="session")
def cold_diffusion_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of the same shop with a masked-diffusion decoder."""
    from tests.bundles import make_cold_diffusion_bundle

    return made_once(tmp_path_factory, "cold-diffusion", make_cold_diffusion_bundle) / "bundle"


@pytest.fixture(scope="session", params=["cold_bundle", "cold_diffusion_bundle"])
def any_cold_bundle(request: pytest.FixtureRequest) -> Path:
    """A bundle of either decoder of a shop that has never sold some of its items."""
    bundle: Path = request.getfixturevalue(request.param)
    return bundle
