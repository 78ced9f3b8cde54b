"""The password in COFINE_STATE_URL is in no answer, metric, log line or error message."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.redis_server import RedisServer
from tests.end_to_end.service_process import (
    START_SECONDS,
    ServiceProcess,
    environment,
    free_port,
    post_event,
    running_service,
    wait_until,
)

PASSWORD = "hunter2-p%40ss"  # noqa: S105 (of these tests' own server)
SECRETS = ("hunter2", "p%40ss", "p@ss", "aladdin", "sesame")


def everything_said(service: ServiceProcess) -> str:
    """What the service tells its clients and writes to its log."""
    said = []
    with service.client() as client:
        for address in ("/v1/info", "/readyz", "/metrics", "/openapi.json", "/v1/users/u"):
            said.append(client.get(address).text)
        said.append(client.post("/v1/recommend", json={"user_id": "u"}).text)
        said.append(post_event(client, "1", "u", "i").text)
        client.get("/livez", headers={"X-Request-ID": "the-last"})
    wait_until(lambda: "the-last" in service.stdout.read_text(), "the log is written")
    return "\n".join([*said, service.stdout.read_text(), service.stderr.read_text()])


@pytest.mark.parametrize("server", ["willing", "refusing", "absent", "without TLS"])
def test_the_password_of_redis_is_told_nobody(
    shop_bundle: Path, tmp_path: Path, own_redis_server: RedisServer, server: str
) -> None:
    accepted = "hunter2-p@ss" if server == "willing" else "another"
    with own_redis_server.client() as redis:
        redis.config_set("requirepass", accepted)
    scheme = "rediss" if server == "without TLS" else "redis"
    port = free_port() if server == "absent" else own_redis_server.port
    url = f"{scheme}://:{PASSWORD}@127.0.0.1:{port}/0"
    chosen = {"log_level": "DEBUG", "state_write_deadline_ms": 5_000, "redis_failures_max": 1}
    with running_service(shop_bundle, tmp_path, state_url=url, **chosen) as service:
        said = everything_said(service)

    assert ('"available":true' in said) is (server == "willing")
    assert [secret for secret in SECRETS if secret in said] == []


def test_the_collectors_password_is_told_nobody(shop_bundle: Path, tmp_path: Path) -> None:
    url = f"http://aladdin:sesame@127.0.0.1:{free_port()}"
    with running_service(shop_bundle, tmp_path, otlp_url=url, log_level="DEBUG") as service:
        everything_said(service)
        # Spans are sent at the end at the latest, here in vain.
        service.signal(signal.SIGINT)
        service.wait()
        said = service.stdout.read_text() + service.stderr.read_text()

    assert "trace" in said  # the failure is told
    assert [secret for secret in SECRETS if secret in said] == []


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("COFINE_STATE_URL", f"postgres://u:{PASSWORD}@host/0"),
        ("COFINE_STATE_URL", f"redis://u:{PASSWORD}@host:port/0"),
        ("COFINE_STATE_URL", f"redis://u:{PASSWORD}@[host/0"),
        ("COFINE_OTLP_URL", f"ftp://u:{PASSWORD}@host"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_it(
    shop_bundle: Path, name: str, url: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "service"],
        env={**environment(bundle=shop_bundle, port=free_port()), name: url},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )

    assert ended.returncode == 3
    assert name.removeprefix("COFINE_").lower() in ended.stderr.lower()
    assert len(ended.stderr.splitlines()) == 1
    assert [secret for secret in SECRETS if secret in ended.stderr + ended.stdout] == []
