from collections.abc import Iterator

import httpx2
import pytest

from tests.contract.redis_server import own_redis_server, redis_server
from tests.end_to_end.conftest import shop_service
from tests.end_to_end.service_process import ServiceProcess

__all__ = ["own_redis_server", "redis_server", "shop_service"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def client(shop_service: ServiceProcess) -> Iterator[httpx2.Client]:
    with shop_service.client() as client:
        yield client
