import pytest

from tests.deployment.docker_engine import SERVICE_IMAGE, build, require_engine


@pytest.fixture(scope="session")
def service_image() -> str:
    """The service's image, built from the working tree."""
    require_engine()
    return build(SERVICE_IMAGE, "service.Dockerfile")
