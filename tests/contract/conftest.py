import pytest

from tests.contract.redis_server import own_redis_server, redis_server

__all__ = ["own_redis_server", "redis_server"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
