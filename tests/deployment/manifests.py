"""The Kubernetes manifests as kustomize renders them, by overlay and components."""

import copy
import itertools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.required import skip_for_want_of
from tests.research_data import PROJECT

KUBERNETES = PROJECT / "k8s"
Manifest = dict[str, Any]

DELIVERIES = (
    (),  # an init container copies the bundle's image
    ("bundle-image-volume",),
    ("bundle-pvc",),
    ("bundle-pvc", "retrain"),
)
"""Ways of bringing the bundle, which exclude each other; retrain publishes into the volume."""
EXTRAS = {"dev": ("monitoring",), "production": ("keda", "monitoring")}
"""Components that go with every delivery. One replica for development needs no KEDA."""


@dataclass(frozen=True)
class Choice:
    """An overlay with components switched on, and perhaps more in its kustomization."""

    overlay: str
    components: tuple[str, ...] = ()
    addition: str = ""

    def __str__(self) -> str:
        return "+".join((self.overlay, *self.components))


def choices() -> list[Choice]:
    """Every overlay with every combination of components that makes sense."""
    return [
        *(
            Choice(overlay, (*delivery, *extra))
            for overlay, extras in EXTRAS.items()
            for delivery in DELIVERIES
            for size in range(len(extras) + 1)
            for extra in itertools.combinations(extras, size)
        ),
        *OWN_REDIS,
    ]


OWN_REDIS = tuple(
    Choice("production", (*others, "redis-cluster"))
    for others in ((), (*DELIVERIES[-1], *EXTRAS["production"]))
)
"""With a Redis Cluster in the namespace, which touches nothing that other components do."""


@dataclass(frozen=True)
class Workload:
    """Something that runs pods: its pod template and where it came from."""

    owner: Manifest
    template: Manifest

    @property
    def name(self) -> str:
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    @property
    def pod(self) -> Manifest:
        pod: Manifest = self.template["spec"]
        return pod

    @property
    def containers(self) -> list[Manifest]:
        """Every container, those that run first included."""
        return [*self.pod.get("initContainers", ()), *self.pod["containers"]]

    @property
    def port_names(self) -> set[str]:
        return {
            port["name"] for container in self.containers for port in container.get("ports", ())
        }

    @property
    def is_service(self) -> bool:
        """Whether its pods answer recommendations."""
        return any(container["name"] == "service" for container in self.pod["containers"])


@dataclass(frozen=True)
class Manifests:
    """All objects of one rendering."""

    overlay: str
    objects: tuple[Manifest, ...]

    def of_kind(self, *kinds: str) -> list[Manifest]:
        return [found for found in self.objects if found["kind"] in kinds]

    def names(self, kind: str) -> set[str]:
        return {found["metadata"]["name"] for found in self.of_kind(kind)}

    def one(self, kind: str, name: str) -> Manifest:
        (found,) = (one for one in self.of_kind(kind) if one["metadata"]["name"] == name)
        return found

    @property
    def workloads(self) -> list[Workload]:
        with_template = self.of_kind("Deployment", "StatefulSet", "Job")
        jobs = self.of_kind("CronJob")
        return [
            *(Workload(owner, owner["spec"]["template"]) for owner in with_template),
            *(Workload(owner, owner["spec"]["jobTemplate"]["spec"]["template"]) for owner in jobs),
        ]

    def selected(self, labels: dict[str, str]) -> list[Workload]:
        """The workloads whose pods carry all of these labels."""
        return [load for load in self.workloads if labels.items() <= load.labels.items()]

    def copy(self) -> "Manifests":
        """The same objects, to be changed without touching these."""
        return Manifests(self.overlay, copy.deepcopy(self.objects))


@cache
def render(choice: Choice) -> Manifests:
    """Render an overlay with the components in its kustomization, where people put them.

    Skips, or fails when COFINE_REQUIRE names kustomize, where there is no tool for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "k8s"
        shutil.copytree(KUBERNETES, copied)
        overlay = copied / "overlays" / choice.overlay
        file = overlay / "kustomization.yaml"
        switched_on = ", ".join(f"../../components/{name}" for name in choice.components)
        text, count = re.subn(
            r"^components: \[\]$",
            f"components: [{switched_on}]",
            file.read_text("utf-8"),
            flags=re.M,
        )
        assert count == 1, f"{file} has no line 'components: []' to switch components on in"
        file.write_text(text + choice.addition, "utf-8")
        rendered = subprocess.run(
            [*_kustomize(), str(overlay)], capture_output=True, text=True, check=False
        )
    assert rendered.returncode == 0, f"{choice}: {rendered.stderr}"
    return Manifests(choice.overlay, tuple(_documents(rendered.stdout)))


def _documents(text: str) -> Iterator[Manifest]:
    for document in yaml.safe_load_all(text):
        assert isinstance(document, dict), f"not an object: {document!r}"
        yield document


def _kustomize() -> Sequence[str]:
    if kustomize := shutil.which("kustomize"):
        return (kustomize, "build")
    if kubectl := shutil.which("kubectl"):
        return (kubectl, "kustomize")
    return skip_for_want_of("kustomize", "install kustomize 5, or kubectl 1.27 or newer")
