import os

import pytest

from tests.deployment.docker_engine import SERVICE_IMAGE, build, require_engine
from tests.required import skip_for_want_of


@pytest.fixture(scope="session")
def service_image() -> str:
    """The service's image, built from the working tree."""
    require_engine()
    return build(SERVICE_IMAGE, "service.Dockerfile")


@pytest.fixture(scope="session")
def training_image() -> str:
    """The training's image, built from the working tree: minutes and gigabytes.

    Only with the index of PyTorch's wheels for CPUs, as `make test-images` names it: PyPI's bring
    gigabytes of CUDA along.
    """
    require_engine()
    index = os.environ.get("COFINE_TEST_TORCH_INDEX")
    if index is None:
        skip_for_want_of("training-image", "make test-images, with the index TORCH_CPU_INDEX")
    # The host's network, so that an index on this machine will do, too.
    options = ("--network", "host", "--build-arg", f"PIP_EXTRA_INDEX_URL={index}")
    return build("cofine-training", "training.Dockerfile", *options)
