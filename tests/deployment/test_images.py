"""The images, built and run by a Docker engine; spoken to over HTTP."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.docker_engine import (
    READ_ONLY,
    Container,
    build,
    docker,
    docker_result,
    mount,
    running_container,
)

GRACE_SECONDS = 10
TRAINING = """
preset = "tiny"
workspace = "run"
bundle = "bundle"
synthesize = { items = 100, users = 150 }
train = { epochs = 1 }
evaluate = { exhaustive_users = 10 }
"""


@pytest.fixture(scope="module")
def service(service_image: str, shop_bundle: Path) -> Iterator[Container]:
    """The service, confined as it is meant to be and ready."""
    with running_container(service_image, *READ_ONLY, *mount(shop_bundle, "/bundle")) as container:
        container.wait_until_ready()
        yield container


def test_it_recommends(service: Container) -> None:
    _, popular = service.request("POST", "/v1/recommend", {"k": 5})
    history = [item["item_id"] for item in popular["items"]]
    status, answer = service.request("POST", "/v1/recommend", {"history": history, "k": 5})
    assert status == 200
    assert {item["source"] for item in answer["items"]} == {"generated"}


def test_it_gets_healthy(service: Container) -> None:
    service.wait_until_healthy()


def test_it_has_no_rights(service: Container) -> None:
    status = dict(
        line.split(":\t", 1) for line in service.run("cat", "/proc/1/status").splitlines()
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_its_user_is_not_root_without_any_option(service_image: str) -> None:
    assert docker("run", "--rm", "--entrypoint", "id", service_image, "-u") == "10001"


@pytest.mark.parametrize("folder", ["/", "/home", "/opt/cofine/bin", "/bundle"])
def test_it_can_write_nowhere(service: Container, folder: str) -> None:
    result = docker_result("exec", service.id, "touch", f"{folder}/file")
    assert result.returncode != 0
    assert "Read-only file system" in result.stderr


def test_it_wants_to_write_nowhere(service_image: str, shop_bundle: Path) -> None:
    with running_container(service_image, *mount(shop_bundle, "/bundle")) as container:
        container.wait_until_ready()
        container.request("POST", "/v1/recommend", {"k": 5})
        changes = docker("diff", container.id).split("\n")
    # The mount point itself is not in the image.
    assert set(changes) <= {"A /bundle", ""}


@pytest.mark.parametrize("module", ["torch", "polars", "sklearn", "faiss", "onnx", "typer", "pip"])
def test_the_offline_half_is_not_there(service: Container, module: str) -> None:
    search = f"import importlib.util; print(importlib.util.find_spec('{module}'))"
    assert service.run("python", "-c", search) == "None"


def test_every_module_is_compiled(service: Container) -> None:
    """A container that cannot write bytecode would compile what is missing at every start."""
    search = (
        "import os, sys, service.app; "
        "files = {getattr(module, '__cached__', None) for module in sys.modules.values()}; "
        "files = [file for file in files if file and file.startswith('/opt/cofine')]; "
        "print(len(files) > 100, [file for file in files if not os.path.exists(file)])"
    )
    assert service.run("python", "-c", search) == "True []"


def test_the_environment_is_small(service_image: str) -> None:
    """What our layers add to the base image, in megabytes."""
    sizes = docker(
        "history", "--format", "{{.Size}} {{.CreatedBy}}", "--human=false", service_image
    )
    ours = [
        line.split(" ", 1)[0] for line in sizes.splitlines() if "/opt/cofine /opt/cofine" in line
    ]
    assert len(ours) == 1, sizes
    assert int(ours[0]) < 200e6


def test_sigterm_ends_it_with_code_0_in_time(service_image: str, shop_bundle: Path) -> None:
    with running_container(service_image, *READ_ONLY, *mount(shop_bundle, "/bundle")) as container:
        container.wait_until_ready()
        started = time.monotonic()
        docker("stop", "--time", str(GRACE_SECONDS), container.id)
        assert time.monotonic() - started < GRACE_SECONDS
        assert container.state["ExitCode"] == 0


def test_the_container_s_cpu_limit_is_the_number_of_workers(
    service_image: str, shop_bundle: Path
) -> None:
    with running_container(service_image, "--cpus=1", *mount(shop_bundle, "/bundle")) as container:
        container.wait_until_ready()
        lines = [json.loads(line) for line in container.logs.splitlines()]
    assert [line["workers"] for line in lines if "workers" in line] == [1]


def test_without_a_bundle_it_says_so_and_ends(service_image: str) -> None:
    result = docker_result("run", "--rm", *READ_ONLY, service_image)
    assert result.returncode == 3
    assert "/bundle is not a bundle: it has no manifest.json" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_empty_bundle_is_refused(service_image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    result = docker_result("run", "--rm", *READ_ONLY, *mount(tmp_path, "/bundle"), service_image)
    assert result.returncode == 3
    assert "/bundle is not a bundle: it has no manifest.json" in result.stderr


def test_a_bundle_that_its_user_may_not_read_is_refused(
    service_image: str, shop_bundle: Path, tmp_path: Path
) -> None:
    private = tmp_path / "bundle"
    shutil.copytree(shop_bundle, private)
    (private / "trie.npy").chmod(0o600)
    result = docker_result("run", "--rm", *READ_ONLY, *mount(private, "/bundle"), service_image)
    assert result.returncode == 3
    assert "trie.npy" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_init_container_can_copy_the_bundle_out_of_its_image(
    service_image: str, shop_bundle: Path, tmp_path: Path
) -> None:
    image = build("cofine-bundle", "bundle.Dockerfile", context=shop_bundle)
    tmp_path.chmod(0o777)
    copying = (*READ_ONLY, *mount(tmp_path, "/copy", "rw"))
    docker("run", "--rm", *copying, image, "cp", "-R", "/bundle/.", "/copy/")
    with running_container(service_image, *READ_ONLY, *mount(tmp_path, "/bundle")) as container:
        container.wait_until_ready()
        bundle_id = json.loads((shop_bundle / "manifest.json").read_text("utf-8"))["bundle_id"]
        assert container.request("GET", "/readyz")[1]["bundle"] == bundle_id


def test_the_inventory_names_what_the_image_contains(service_image: str, tmp_path: Path) -> None:
    options = ("--target", "sbom", "--output", str(tmp_path))
    docker("build", "--file", "docker/service.Dockerfile", *options, ".")
    inventory = json.loads((tmp_path / "sbom.json").read_text("utf-8"))
    assert inventory["bomFormat"] == "CycloneDX"
    listed = {(part["name"], part["version"]) for part in inventory["components"]}
    search = (
        "from importlib.metadata import distributions; "
        "print(*(f'{one.name}=={one.version}' for one in distributions()))"
    )
    inside = docker("run", "--rm", "--entrypoint", "python", service_image, "-c", search)
    assert listed == {tuple(one.split("==")) for one in inside.split()}


@pytest.mark.slow
def test_the_training_image_makes_a_bundle_that_is_served(
    service_image: str, training_image: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "shop.toml").write_text(TRAINING, "utf-8")
    confined = (*READ_ONLY, "--tmpfs=/tmp", *mount(tmp_path, "/data", "rw"))
    docker("run", "--rm", *confined, training_image, "run", "/data/shop.toml")
    bundle = mount(tmp_path / "bundle", "/bundle")
    with running_container(service_image, *READ_ONLY, *bundle) as container:
        container.wait_until_ready()
