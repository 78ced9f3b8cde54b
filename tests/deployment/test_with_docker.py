"""tests/deployment/with_docker.sh does no harm to an engine that runs already."""

import shutil
import subprocess

from tests.end_to_end.service_process import REPOSITORY
from tests.required import skip_for_want_of

SCRIPT = "tests/deployment/with_docker.sh"
WITHOUT_DAEMONS = "/usr/bin:/bin"
"""Nothing is started from there, even if nothing is refused."""


def test_it_refuses_to_run_beside_an_engine() -> None:
    bridge = ["unshare", "--net", "ip", "link", "add", "docker0", "type", "bridge"]
    if shutil.which("ip") is None or subprocess.run(bridge, check=False).returncode != 0:
        skip_for_want_of("network of its own", "run as root, with iproute2 installed")
    # An engine's bridge, in a network that nobody else sees.
    commands = f"ip link add docker0 type bridge && exec {SCRIPT} touch /nowhere/file"
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", commands],  # noqa: S607 (on the path given)
        cwd=REPOSITORY,
        env={"PATH": WITHOUT_DAEMONS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "docker0" in done.stderr
    assert len(done.stderr.splitlines()) == 1
