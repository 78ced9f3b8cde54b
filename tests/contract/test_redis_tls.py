"""Every kind of Redis with TLS: users are stored and read back, and nobody is trusted blindly."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import StateUnavailableError
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState
from service.user_state import Event, StateLimits
from tests.contract.redis_cluster_servers import ClusterServers
from tests.contract.redis_sentinels import SentinelServers
from tests.contract.redis_server import RedisServer, free_port, required_executable
from tests.contract.redis_tls import Certificates

pytestmark = pytest.mark.anyio

USERS = ("ann", "bob", "eve", "joe", "kim", "lea")
PATIENT_SECONDS = 5.0
LIMITS = ConnectionLimits(socket_timeout_seconds=PATIENT_SECONDS)


@contextmanager
def running(kind: str, folder: Path, certificates: Certificates) -> Iterator[str]:
    """The URL of servers with TLS."""
    servers: RedisServer | SentinelServers | ClusterServers
    if kind == "server":
        port = free_port()
        servers = RedisServer(required_executable(), folder, options=certificates.options(port))
        url = certificates.url(f"redis://127.0.0.1:{port}/0")
    elif kind == "sentinel":
        servers = SentinelServers(folder, certificates=certificates)
        url = servers.url
    else:
        servers = ClusterServers(folder, replicas=0, certificates=certificates)
        url = servers.url
    try:
        servers.start()
        yield url
    finally:
        servers.kill()


@pytest.mark.parametrize("kind", ["server", "sentinel", "cluster"])
async def test_users_are_kept_behind_tls(
    kind: str, tmp_path: Path, certificates: Certificates
) -> None:
    with running(kind, tmp_path, certificates) as url:
        store = RedisUserState(url, StateLimits(), Metrics(), LIMITS)
        await store.start()
        try:
            for user_id in USERS:
                event = Event("1", f"shoe of {user_id}", 1_000)
                await store.append(user_id, [event], deadline_seconds=PATIENT_SECONDS)
            for user_id in USERS:
                state = await store.read(user_id, deadline_seconds=PATIENT_SECONDS)
                assert [entry.item_id for entry in state.history] == [f"shoe of {user_id}"]
        finally:
            await store.close()


@pytest.mark.parametrize("kind", ["server", "sentinel", "cluster"])
async def test_a_server_of_an_unknown_authority_is_told_nothing(
    kind: str, tmp_path: Path, certificates: Certificates
) -> None:
    (tmp_path / "strangers").mkdir()
    strangers = Certificates.write(tmp_path / "strangers")
    with running(kind, tmp_path, certificates) as url:
        trusting = url.partition("?")[0].replace("rediss", "redis", 1)
        store = RedisUserState(strangers.url(trusting), StateLimits(), Metrics(), LIMITS)
        await store.start()
        try:
            with pytest.raises(StateUnavailableError):
                await store.append(
                    "ann", [Event("1", "shoe", 1_000)], deadline_seconds=PATIENT_SECONDS
                )
        finally:
            await store.close()
