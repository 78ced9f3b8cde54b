"""Docker's command line, and containers that go away with their test."""

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.service_process import REPOSITORY, wait_until
from tests.required import skip_for_want_of

WITH_DOCKER = "tests/deployment/with_docker.sh COMMAND runs a command with an engine"
SERVICE_IMAGE = "cofine-service"
READ_ONLY = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""How the service is meant to be run."""


def require_engine() -> None:
    """Skip the test, or fail it when COFINE_REQUIRE names docker, where no engine answers."""
    if shutil.which("docker") is None or docker_result("version").returncode != 0:
        skip_for_want_of("docker", WITH_DOCKER)


def require_image(image: str) -> None:
    """Skip the test, or fail it when COFINE_REQUIRE names the image, which cannot be had here."""
    if docker_result("image", "inspect", image).returncode == 0:
        return
    if docker_result("pull", image).returncode != 0:
        skip_for_want_of(image, "it is not here, and cannot be pulled")


def docker_result(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `docker` to its end, whatever that is."""
    return subprocess.run(
        ["docker", *arguments],  # noqa: S607 (whichever is first on the PATH)
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=1_800,
    )


def docker(*arguments: str) -> str:
    """What `docker` prints; it has to succeed."""
    result = docker_result(*arguments)
    assert result.returncode == 0, f"docker {' '.join(arguments)}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


def build(image: str, dockerfile: str, *options: str, context: Path = REPOSITORY) -> str:
    """Build an image from a file in docker/; returns the image's name."""
    docker("build", "--tag", image, "--file", f"docker/{dockerfile}", *options, str(context))
    return image


def mount(source: Path, target: str, mode: str = "ro") -> tuple[str, str]:
    return ("--volume", f"{source.resolve()}:{target}:{mode}")


@dataclass(frozen=True)
class Container:
    """A container that was started; it may have ended."""

    id: str

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            docker("inspect", "--format", "{{json .State}}", self.id)
        )
        return found

    @property
    def logs(self) -> str:
        found = docker_result("logs", self.id)
        return found.stdout + found.stderr

    def run(self, *command: str) -> str:
        """What a command prints inside; it has to succeed."""
        return docker("exec", self.id, *command)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the JSON body of the service's answer."""
        address = docker("port", self.id, "8000/tcp").splitlines()[0]
        connection = http.client.HTTPConnection(address, timeout=10)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.state["Running"], f"it ended: {self.logs}"
            try:
                return self.request("GET", "/readyz")[0] == 200
            except (ConnectionError, http.client.HTTPException):
                return False

        wait_until(is_ready, "the container gets ready", seconds=60)

    def wait_until_healthy(self) -> None:
        wait_until(
            lambda: self.state["Health"]["Status"] == "healthy",
            "the container's health check says healthy",
            seconds=60,
        )


@contextmanager
def running_container(image: str, *options: str) -> Iterator[Container]:
    """The image's own command, published on a free port of 127.0.0.1."""
    started = docker("run", "--detach", "--publish", "127.0.0.1::8000", *options, image)
    try:
        yield Container(started)
    finally:
        docker("rm", "--force", "--volumes", started)
