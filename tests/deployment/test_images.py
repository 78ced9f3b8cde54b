"""The images, built and run by a Docker engine; spoken to over HTTP."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model.training.embedding.text_encoder import (
    PACKAGED_MODEL,
    SentenceEncoder,
    missing_packages,
)
from model.training.sentence_graph import export_text_encoder
from model.training.stage_files import save_json
from tests.deployment.docker_engine import (
    READ_ONLY,
    Container,
    build,
    docker,
    docker_result,
    mount,
    running_container,
)
from tests.end_to_end.service_process import REPOSITORY
from tests.required import skip_for_want_of

GRACE_SECONDS = 10
TRAINING = """
preset = "tiny"
workspace = "run"
bundle = "bundle"
synthesize = { items = 100, users = 150 }
train = { epochs = 1 }
evaluate = { exhaustive_users = 10 }
"""


READ_A_TEXT = """
from pathlib import Path
from model.text_encoder import open_text_encoder
print(open_text_encoder(Path("/encoder")).encode(["nail polish"]).shape)
"""


def imported_modules(files: Iterable[Path]) -> set[str]:
    """What these import, wherever in a file, but the standard library's modules and our own."""
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
    known = {*sys.stdlib_module_names, "service", "model"}
    return {name for name in found if name.split(".")[0] not in known}


def homes_of(modules: set[str]) -> dict[str, str]:
    """The distribution that brings each of these; namespaces are shared by many."""
    files = {
        f"{name.replace('.', '/')}{ending}": name
        for name in modules
        for ending in (".py", "/__init__.py")
    }
    return {
        files[str(file)]: canonicalize_name(distribution.name)
        for distribution in distributions()
        for file in distribution.files or ()
        if str(file) in files
    }


def requirements_of_the_image() -> list[Requirement]:
    """What the build installs, as the command in its file prints it."""
    dockerfile = (REPOSITORY / "docker" / "service.Dockerfile").read_text("utf-8")
    command = re.search(r'^RUN python (-c "[^"]+")', dockerfile, re.MULTILINE)
    assert command is not None
    printed = subprocess.run(
        [sys.executable, *shlex.split(command[1])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [Requirement(line) for line in printed.splitlines()]


def with_what_they_require(requirements: list[Requirement]) -> set[str]:
    """The names of the distributions that installing these brings."""
    found: set[str] = set()
    while requirements:
        one = requirements.pop()
        found.add(canonicalize_name(one.name))
        try:
            below = [Requirement(line) for line in requires(one.name) or ()]
        except PackageNotFoundError:  # for another platform
            continue
        extras = one.extras or {""}
        requirements += [
            each
            for each in below
            if canonicalize_name(each.name) not in found
            and (each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras))
        ]
    return found


def test_it_installs_whatever_the_online_half_imports() -> None:
    """Optional packages, too: in the image every setting works."""
    installed = with_what_they_require(requirements_of_the_image())
    # Not the command of the offline half, nor what callers of the service install.
    files = [
        *(file for file in (REPOSITORY / "service").rglob("*.py") if "client" not in file.parts),
        *(REPOSITORY / "model").glob("[!_]*.py"),
    ]
    modules = imported_modules(files)
    homes = homes_of(modules)
    assert modules == homes.keys()
    assert {module for module, home in homes.items() if home not in installed} == set()
    assert "torch" not in installed


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


def test_it_reads_a_new_item_s_text_with_a_sentence_encoder(
    service_image: str, tmp_path: Path
) -> None:
    missing = missing_packages(PACKAGED_MODEL)
    if missing:
        skip_for_want_of("sentence encoder", f"install {' and '.join(missing)}: make install-text")
    encoder = SentenceEncoder(PACKAGED_MODEL, batch_size=8)
    save_json(tmp_path / "encoder.json", encoder.export(tmp_path))
    export_text_encoder(tmp_path)
    tmp_path.chmod(0o755)
    confined = (*READ_ONLY, *mount(tmp_path, "/encoder"), "--entrypoint", "python")
    assert docker("run", "--rm", *confined, service_image, "-c", READ_A_TEXT) == "(1, 384)"


def test_it_traces(service_image: str, shop_bundle: Path) -> None:
    """To a collector that is away, which is no reason not to answer."""
    tracing = ("--env", "COFINE_OTLP_URL=http://127.0.0.1:4318")
    options = (*READ_ONLY, *tracing, *mount(shop_bundle, "/bundle"))
    with running_container(service_image, *options) as container:
        container.wait_until_ready()
        assert container.request("POST", "/v1/recommend", {"k": 5})[0] == 200


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
    """What our layers add to the base image, in bytes."""
    sizes = docker(
        "history", "--format", "{{.Size}} {{.CreatedBy}}", "--human=false", service_image
    )
    ours = [
        line.split(" ", 1)[0] for line in sizes.splitlines() if "/opt/cofine /opt/cofine" in line
    ]
    assert len(ours) == 1, sizes
    assert int(ours[0]) < 250e6


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
