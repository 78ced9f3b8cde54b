"""The rendered Deployment, run by podman: the nearest thing to a cluster without one.

What podman 4 cannot do is taken out or done beside it, and nothing else: it has no Services, so the
port goes and requests are made inside the pod, which has no network; it reads no Secret objects
into variables, so it gets the same secret by a command; it insists on optional ones, so their
volumes go; and it would start an init container again and again unless the pod's restart policy is
Never. It ignores probes, preStop and topology.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.deployment.docker_engine import build, docker
from tests.deployment.manifests import Choice, Manifest, render
from tests.end_to_end.service_process import wait_until
from tests.required import skip_for_want_of

# Works without systemd, and in the limits of a container.
CONFIGURATION = """
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
ASK = """
import json, sys, urllib.request
body = sys.argv[2].encode() if sys.argv[2:] else None
kind = {"Content-Type": "application/json"}
request = urllib.request.Request(f"http://127.0.0.1:8000{sys.argv[1]}", body, kind)
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""


@dataclass(frozen=True)
class Podman:
    """podman with images and containers of its own, in a folder."""

    folder: Path

    def result(self, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run `podman` to its end, whatever that is."""
        own = [f"--root={self.folder}/root", f"--runroot={self.folder}/run"]
        return subprocess.run(
            ["podman", *own, f"--tmpdir={self.folder}/state", *arguments],  # noqa: S607
            env={**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")},
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def __call__(self, *arguments: str, text: str = "") -> str:
        """What `podman` prints; it has to succeed."""
        result = self.result(*arguments, text=text)
        assert result.returncode == 0, f"podman {' '.join(arguments)}: {result.stderr}"
        return result.stdout.strip()


@dataclass(frozen=True)
class Pod:
    """The service's container in a pod that runs."""

    podman: Podman
    container: str

    @property
    def logs(self) -> str:
        found = self.podman.result("logs", self.container)
        return found.stdout + found.stderr

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return self.podman.result("exec", self.container, *command)

    def ask(self, path: str, body: object = None) -> Manifest:
        """The JSON of an answer that must be 200."""
        arguments = [path] if body is None else [path, json.dumps(body)]
        result = self.run("python", "-c", ASK, *arguments)
        assert result.returncode == 0, result.stderr
        answer: Manifest = json.loads(result.stdout)
        return answer


@pytest.fixture(scope="module")
def podman(service_image: str, shop_bundle: Path) -> Iterator[Podman]:
    """podman with the images of the service and of a bundle."""
    for program in ("podman", "runc", "/usr/libexec/podman/catatonit"):
        if shutil.which(program) is None:
            skip_for_want_of(
                "podman", "apt-get install -y --no-install-recommends podman runc catatonit"
            )
    # Not below the test's own folder: podman refuses long paths.
    with tempfile.TemporaryDirectory() as folder:
        podman = Podman(Path(folder))
        (podman.folder / "containers.conf").write_text(CONFIGURATION, "utf-8")
        archive = str(podman.folder / "images.tar")
        bundle_image = build("cofine-bundle", "bundle.Dockerfile", context=shop_bundle)
        docker("save", "--output", archive, service_image, bundle_image)
        podman("load", "--input", archive)
        for image in (service_image, bundle_image):
            podman("tag", f"localhost/{image}:latest", f"localhost/{image}:dev")
        try:
            yield podman
        finally:
            podman("pod", "rm", "--all", "--force", "--time=0")
            podman("volume", "rm", "--all", "--force")


@pytest.fixture(scope="module")
def deployment() -> Manifest:
    return render(Choice("dev")).one("Deployment", "cofine")


@pytest.fixture(scope="module")
def pod(podman: Podman) -> Pod:
    """The pod of the overlay `dev`, ready; there is no Redis behind its URL."""
    manifests = render(Choice("dev")).copy()
    template = manifests.one("Deployment", "cofine")["spec"]["template"]["spec"]
    template["restartPolicy"] = "Never"
    optional = {
        each["name"] for each in template["volumes"] if each.get("secret", {}).get("optional")
    }
    template["volumes"] = [each for each in template["volumes"] if each["name"] not in optional]
    for container in template["containers"]:
        del container["ports"]
        container["volumeMounts"] = [
            each for each in container["volumeMounts"] if each["name"] not in optional
        ]
    for secret in manifests.of_kind("Secret"):
        podman("secret", "create", secret["metadata"]["name"], "-", text=json.dumps(secret["data"]))
    file = podman.folder / "pod.yaml"
    file.write_text(yaml.safe_dump_all(manifests.of_kind("ConfigMap", "Deployment")), "utf-8")
    podman("play", "kube", "--network=none", str(file))
    found = Pod(podman, "cofine-pod-0-service")

    def is_ready() -> bool:
        state = podman("inspect", "--format={{.State.Running}}", found.container)
        assert state == "true", f"it ended: {found.logs}"
        return found.run("python", "-c", ASK, "/readyz").returncode == 0

    wait_until(is_ready, "the pod gets ready", seconds=60)
    return found


def test_it_is_ready_without_redis(pod: Pod) -> None:
    assert pod.ask("/readyz")["state"] == {"kind": "redis", "available": False}


def test_it_recommends_from_the_bundle_that_was_copied(pod: Pod, shop_bundle: Path) -> None:
    manifest = json.loads((shop_bundle / "manifest.json").read_text("utf-8"))

    answer = pod.ask("/v1/recommend", {"user_id": "ann", "k": 3})

    assert answer["bundle"] == manifest["bundle_id"]
    assert len(answer["items"]) == 3
    assert answer["degraded"] == {
        "state_unavailable": True,
        "levels": None,
        "paging": False,
        "explanations": False,
    }


def test_it_has_no_rights(pod: Pod, deployment: Manifest) -> None:
    lines = pod.run("cat", "/proc/1/status").stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    user = deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"]

    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(user)}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # a filter


def test_it_can_write_to_tmp_only(pod: Pod) -> None:
    for folder in ("/", "/bundle", "/opt/cofine"):
        refused = pod.run("touch", f"{folder}/written")
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr

    assert pod.run("touch", "/tmp/written").returncode == 0  # noqa: S108 (inside the pod)


def test_it_has_the_limits_and_follows_them(pod: Pod, deployment: Manifest) -> None:
    (service,) = deployment["spec"]["template"]["spec"]["containers"]
    limits = service["resources"]["limits"]
    (host,) = json.loads(pod.podman("inspect", pod.container))

    assert host["HostConfig"]["NanoCpus"] == int(limits["cpu"]) * 10**9
    assert limits["memory"] == "512Mi"
    assert host["HostConfig"]["Memory"] == 512 * 2**20
    assert f'"workers": {limits["cpu"]}' in pod.logs


def test_it_ends_with_status_0_within_the_grace_period(podman: Podman, pod: Pod) -> None:
    # The last test, as it ends the pod of the others.
    grace = render(Choice("dev")).one("Deployment", "cofine")["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]

    podman("stop", f"--time={grace}", pod.container)

    assert podman("inspect", "--format={{.State.ExitCode}}", pod.container) == "0"
