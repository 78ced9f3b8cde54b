"""Where Redis is, read from one URL: a server, the master that sentinels name, or a cluster.

    redis://user:password@host:6379/0          a server; rediss:// speaks TLS
    unix:///path                               a server on this machine
    redis+sentinel://host1,host2:26379/name/0  the master called `name`; rediss+sentinel://
    redis+cluster://host1,host2:6379           a cluster; rediss+cluster://

Behind `?` stands what redis-py reads there, such as `ssl_ca_certs`. User and password are those of
Redis; sentinels that want their own get `sentinel_username` and `sentinel_password` there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SCHEMES: Final = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
)
_PORTS: Final = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_SENTINEL_OPTIONS: Final = {f"sentinel_{name}": name for name in ("username", "password")}


class Node(NamedTuple):
    """A host, as a name or an IP address, and a port."""

    host: str
    port: int


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is.

    Attributes:
        kind: what is there.
        nodes: any of the cluster, or the sentinels; the server itself, none for a Unix socket.
        url: as redis-py reads it; its host is that of the first node.
        master: what sentinels call the master, otherwise empty.
        sentinel_login: user and password that the sentinels want, if any.
    """

    kind: Literal["server", "sentinel", "cluster"]
    nodes: tuple[Node, ...]
    url: str = field(repr=False)
    master: str = ""
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: it is none of Redis, or incomplete; the message never shows it.
        """
        if not url.startswith(SCHEMES):
            raise ValueError(f"must start with one of {', '.join(SCHEMES)}")
        if url.startswith("unix://"):
            return cls("server", (), url)
        scheme, _, rest = url.partition("://")
        transport, _, kind = scheme.partition("+")
        authority, *_ = rest.replace("?", "/").split("/")
        login, at, hosts = authority.rpartition("@")
        tail = rest[len(authority) :]
        if kind == "sentinel":
            nodes = _nodes(hosts, _PORTS["sentinel"])
            master, path, options, sentinel_login = _sentinel_parts(tail)
            plain = _plain(transport, login + at, nodes[0], path + options)
            return cls("sentinel", nodes, plain, master, sentinel_login)
        if kind == "cluster":
            if urlsplit(f"//x{tail}").path.strip("/") not in {"", "0"}:
                raise ValueError("must name no database: a cluster has only 0")
            nodes = _nodes(hosts, _PORTS["cluster"])
            return cls("cluster", nodes, _plain(transport, login + at, nodes[0], tail))
        if "," in hosts:
            raise ValueError("must name one host; several need redis+cluster or redis+sentinel")
        return cls("server", (_node(hosts or "localhost", _PORTS["server"]),), url)

    def of_node(self, node: Node) -> "RedisAddress":
        """Return the address of one node of the cluster, with its login and options."""
        parts = urlsplit(self.url)
        login, at, _ = parts.netloc.rpartition("@")
        tail = parts.path + (f"?{parts.query}" if parts.query else "")
        return RedisAddress("server", (node,), _plain(parts.scheme, login + at, node, tail))


def _nodes(hosts: str, port: int) -> tuple[Node, ...]:
    return tuple(_node(host, port) for host in hosts.split(","))


def _node(text: str, port: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        node = Node(parts.hostname or "", port if parts.port is None else parts.port)
    except ValueError:
        raise ValueError("must have a port from 0 to 65535, or none, after each host") from None
    if not node.host:
        raise ValueError("must name its hosts: host1,host2:port")
    return node


def _plain(transport: str, login: str, node: Node, tail: str) -> str:
    host = f"[{node.host}]" if ":" in node.host else node.host
    return f"{transport}://{login}{host}:{node.port}{tail}"


def _sentinel_parts(tail: str) -> tuple[str, str, str, dict[str, str]]:
    """Return the master's name, `/db`, `?options` for Redis and the login of the sentinels."""
    path, _, query = tail.partition("?")
    master, _, database = path.strip("/").partition("/")
    if not master:
        raise ValueError("must name the master: redis+sentinel://host1,host2/name")
    given = parse_qsl(query, keep_blank_values=True)
    login = {_SENTINEL_OPTIONS[name]: value for name, value in given if name in _SENTINEL_OPTIONS}
    options = urlencode([(name, value) for name, value in given if name not in _SENTINEL_OPTIONS])
    return unquote(master), f"/{database}", f"?{options}" if options else "", login
