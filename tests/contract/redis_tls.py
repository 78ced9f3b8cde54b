"""Certificates for Redis servers of the tests' own, which then listen with TLS beside without."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme

from tests.contract.redis_server import required_executable
from tests.required import skip_for_want_of


@dataclass(frozen=True)
class Certificates:
    """An authority of its own, and a certificate of it for 127.0.0.1 with its key."""

    authority: Path
    server: Path

    @classmethod
    def write(cls, folder: Path) -> "Certificates":
        found = cls(folder / "authority.pem", folder / "server.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(found.authority)
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(found.server)
        return found

    def settings(self, port: int) -> list[str]:
        """What a server is told, to have clients, replicas and its cluster come to `port`."""
        return [
            f"tls-port {port}",
            f"tls-cert-file {self.server}",
            f"tls-key-file {self.server}",
            f"tls-ca-cert-file {self.authority}",
            "tls-auth-clients no",
            "tls-replication yes",
        ]

    def options(self, port: int) -> list[str]:
        """The same for a command line."""
        return [word for line in self.settings(port) for word in f"--{line}".split(" ", 1)]

    def url(self, plain: str) -> str:
        """The URL `plain` with TLS, whose client trusts the authority."""
        query = urlencode({"ssl_ca_certs": str(self.authority)})
        return f"{plain.replace('redis', 'rediss', 1)}?{query}"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Certificates; skips where the Redis server was built without TLS."""
    # Without any port a server ends at once, but first it says which settings it does not know.
    command = [required_executable(), "--port", "0", "--tls-port", "0"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stderr
    if "tls-port" in said:
        skip_for_want_of("redis", "this one speaks no TLS: install Debian's redis-server")
    return Certificates.write(tmp_path)
