import pytest

from tests.contract.redis_cluster_servers import own_redis_cluster, redis_cluster
from tests.contract.redis_sentinels import own_sentinels
from tests.contract.redis_server import own_redis_server, redis_server
from tests.contract.redis_tls import certificates

__all__ = [
    "certificates",
    "own_redis_cluster",
    "own_redis_server",
    "own_sentinels",
    "redis_cluster",
    "redis_server",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
