"""The Redis Cluster of the manifests: its settings and what forms it, with real servers."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
import redis

from tests.contract.redis_cluster_servers import port_with_bus
from tests.contract.redis_server import required_executable
from tests.deployment.manifests import OWN_REDIS, render
from tests.end_to_end.service_process import wait_until
from tests.required import skip_for_want_of

pytestmark = pytest.mark.slow

SERVERS = range(6)
PASSWORD = "secret"  # noqa: S105 (of the tests' own servers)


class Pods:
    """The StatefulSet's servers on addresses of this machine's own network, and its CronJob."""

    def __init__(self, folder: Path) -> None:
        executable = required_executable()
        if " v=6." in subprocess.check_output([executable, "--version"], text=True):
            skip_for_want_of("redis-7", "install redis-server 7, which knows nodes by name")
        manifests = render(OWN_REDIS[0])
        (self._files,) = (
            one["data"] for one in manifests.of_kind("ConfigMap") if "redis.conf" in one["data"]
        )
        pod = manifests.one("StatefulSet", "redis-cluster")["spec"]["template"]["spec"]
        self._command = [executable, *pod["containers"][0]["args"][1:]]
        self._folder = folder
        random = SystemRandom()
        self._network = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        self.port = port_with_bus()
        self.addresses: dict[str, str] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int, *, host: int) -> None:
        """Start a pod with its volume at an address; it answers when this returns."""
        volume = self._folder / str(number)
        volume.mkdir(exist_ok=True)
        file = self._folder / f"{number}.conf"
        file.write_text(self._files["redis.conf"].replace("/data", str(volume)), "utf-8")
        name, address = f"redis-cluster-{number}", f"{self._network}.{host}"
        given = {"REDISCLI_AUTH": PASSWORD, "POD_IP": address, "POD_NAME": name}
        program, _, *arguments = (
            re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], word) for word in self._command
        )
        options = ("--port", str(self.port), "--bind", address)
        self._processes[number] = subprocess.Popen(
            [program, str(file), *options, *arguments], stdout=subprocess.DEVNULL
        )
        self.addresses[f"{name}.redis-cluster"] = address
        wait_until(lambda: self._answers(number), f"{name} answers")

    def end(self, number: int) -> None:
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    def lose_volume(self, number: int) -> None:
        shutil.rmtree(self._folder / str(number))

    def end_all(self) -> None:
        for number in list(self._processes):
            self.end(number)

    @contextmanager
    def client(self, number: int) -> Iterator["redis.Redis"]:
        address = self.addresses[f"redis-cluster-{number}.redis-cluster"]
        with redis.Redis(address, self.port, password=PASSWORD, decode_responses=True) as client:
            yield client

    @contextmanager
    def whole(self) -> Iterator["redis.RedisCluster"]:
        """A client that finds each key's master by the names that the servers say."""
        first, *_ = self.addresses.values()
        client = redis.RedisCluster(
            host=first,
            port=self.port,
            password=PASSWORD,
            address_remap=lambda named: (self.addresses.get(named[0], named[0]), named[1]),
        )
        try:
            yield client
        finally:
            client.close()

    def say(self, number: int, *command: str | int) -> Any:
        with self.client(number) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def _answers(self, number: int) -> bool:
        try:
            return bool(self.say(number, "PING"))
        except redis.ConnectionError:
            return False

    def form(self) -> None:
        """Run the CronJob's script; names are looked up in a file, and the port is ours."""
        programs = self._folder / "programs"
        programs.mkdir(exist_ok=True)
        hosts = self._folder / "hosts"
        hosts.write_text("".join(f"{ip} {name}\n" for name, ip in self.addresses.items()), "utf-8")
        lookup = programs / "getent"
        lookup.write_text(f'#!/bin/sh\nexec grep " $2\\$" {hosts}\n', "utf-8")
        lookup.chmod(0o755)
        script = self._folder / "form.sh"
        text = re.sub(r"\b16379\b", str(self.port + 10_000), self._files["form.sh"])
        script.write_text(re.sub(r"\b6379\b", str(self.port), text), "utf-8")
        path = f"{programs}:{os.environ['PATH']}"
        ended = subprocess.run(
            ["sh", str(script)],  # noqa: S607 (as the pod runs it)
            env={**os.environ, "PATH": path, "REDISCLI_AUTH": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def replicas(self, number: int) -> list[int]:
        """How many each master that serves slots has, as one server sees it."""
        slots = self.say(number, "CLUSTER", "SLOTS")
        assert sum(last - first + 1 for first, last, *_ in slots) == 16_384
        return sorted(len(holders) - 1 for _, _, *holders in slots)

    def is_whole(self) -> bool:
        """Whether every server sees all slots served, and a replica of each."""
        return all(self.replicas(number) == [1, 1, 1] for number in SERVERS)


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    """Six servers that know nothing of each other."""
    if shutil.which("redis-cli") is None:
        skip_for_want_of("redis", "install redis-server, and redis-cli with it")
    found = Pods(tmp_path)
    try:
        for number in SERVERS:
            found.start(number, host=1 + number)
        yield found
    finally:
        found.end_all()


def write(pods: Pods, keys: Sequence[str]) -> None:
    with pods.whole() as client:
        for key in keys:
            client.set(key, key)


def read(pods: Pods, keys: Sequence[str]) -> list[str]:
    with pods.whole() as client:
        found = [client.get(key) for key in keys]
    return [value.decode() for value in found if isinstance(value, bytes)]


KEYS = [f"key-{number}" for number in range(50)]


def test_redis_takes_the_settings_of_its_cluster(pods: Pods) -> None:
    with pods.client(0) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
    assert "redis-cluster-0.redis-cluster" in str(pods.say(0, "CLUSTER", "NODES"))


def test_new_servers_become_a_cluster_and_old_ones_stay_one(pods: Pods) -> None:
    pods.form()
    wait_until(pods.is_whole, "all are a cluster")
    names = [pods.say(number, "CLUSTER", "MYID") for number in SERVERS]
    write(pods, KEYS)

    pods.form()

    wait_until(pods.is_whole, "all are a cluster again")
    assert [pods.say(number, "CLUSTER", "MYID") for number in SERVERS] == names
    assert read(pods, KEYS) == KEYS


@pytest.mark.parametrize("first_host", [21, 4])
def test_servers_that_all_got_new_addresses_find_each_other(pods: Pods, first_host: int) -> None:
    pods.form()
    wait_until(pods.is_whole, "all are a cluster")
    write(pods, KEYS)
    pods.end_all()
    for number in SERVERS:
        pods.start(number, host=first_host + number)

    pods.form()

    wait_until(pods.is_whole, "all are a cluster again")
    # At 4, most get an address that another had. A replica that asks there for its master's data is
    # given another's, and Redis may then promote it: docs/kubernetes.md.
    if first_host > 6:
        assert read(pods, KEYS) == KEYS


def test_a_server_without_its_volume_becomes_a_replica(pods: Pods) -> None:
    pods.form()
    wait_until(pods.is_whole, "all are a cluster")
    write(pods, KEYS)
    wait_until(lambda: all(len(pods.say(n, "KEYS", "*")) > 0 for n in SERVERS), "replicas follow")
    pods.end(0)
    pods.lose_volume(0)
    pods.start(0, host=20)

    pods.form()

    wait_until(pods.is_whole, "every master has a replica")
    assert pods.say(0, "ROLE")[0] == "slave"
    assert read(pods, KEYS) == KEYS


def interrupted_before_they_met(pods: Pods) -> None:
    pods.say(0, "CLUSTER", "ADDSLOTSRANGE", 0, 5460)


def interrupted_before_they_had_replicas(pods: Pods) -> None:
    interrupted_before_they_met(pods)
    pods.say(1, "CLUSTER", "ADDSLOTSRANGE", 5461, 10922)
    pods.say(2, "CLUSTER", "ADDSLOTSRANGE", 10923, 16383)
    for address in list(pods.addresses.values())[1:]:
        pods.say(0, "CLUSTER", "MEET", address, pods.port)


@pytest.mark.parametrize(
    "interrupted", [interrupted_before_they_met, interrupted_before_they_had_replicas]
)
def test_a_formation_that_was_interrupted_goes_on(pods: Pods, interrupted: Any) -> None:
    interrupted(pods)

    pods.form()

    wait_until(pods.is_whole, "all are a cluster")
