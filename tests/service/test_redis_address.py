import pytest

from service.redis_address import Node, RedisAddress


@pytest.mark.parametrize(
    ("url", "kind", "nodes", "plain", "master"),
    [
        ("redis://h", "server", [("h", 6379)], "redis://h", ""),
        ("redis://", "server", [("localhost", 6379)], "redis://", ""),
        ("rediss://u:p@h:1/2", "server", [("h", 1)], "rediss://u:p@h:1/2", ""),
        ("unix:///run/redis.sock?db=1", "server", [], "unix:///run/redis.sock?db=1", ""),
        (
            "redis+sentinel://a,b:7/main",
            "sentinel",
            [("a", 26379), ("b", 7)],
            "redis://a:26379/",
            "main",
        ),
        (
            "rediss+sentinel://u:p@a/my%20main/3?ssl_ca_certs=x%2Fy",
            "sentinel",
            [("a", 26379)],
            "rediss://u:p@a:26379/3?ssl_ca_certs=x%2Fy",
            "my main",
        ),
        (
            "redis+cluster://:p,q@a:1,[::1]",
            "cluster",
            [("a", 1), ("::1", 6379)],
            "redis://:p,q@a:1",
            "",
        ),
        (
            "rediss+cluster://a/0?ssl_check_hostname=false",
            "cluster",
            [("a", 6379)],
            "rediss://a:6379/0?ssl_check_hostname=false",
            "",
        ),
    ],
)
def test_an_address_is_read(
    url: str, kind: str, nodes: list[tuple[str, int]], plain: str, master: str
) -> None:
    address = RedisAddress.parse(url)

    assert (address.kind, address.url, address.master) == (kind, plain, master)
    assert address.nodes == tuple(Node(*node) for node in nodes)


def test_a_node_is_asked_with_the_login_and_options_of_all() -> None:
    address = RedisAddress.parse("rediss+cluster://u:p%40@a,b?ssl_ca_certs=ca.pem")

    for node, host in ((Node("c", 7), "c:7"), (Node("fe80::1", 7), "[fe80::1]:7")):
        plain = address.of_node(node)
        assert plain == RedisAddress(
            "server", (node,), f"rediss://u:p%40@{host}?ssl_ca_certs=ca.pem"
        )


def test_sentinels_have_a_login_of_their_own() -> None:
    address = RedisAddress.parse(
        "redis+sentinel://:redis@a/main?sentinel_password=s%26s&sentinel_username=u&db=2"
    )

    assert address.sentinel_login == {"username": "u", "password": "s&s"}
    assert address.url == "redis://:redis@a:26379/?db=2"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://u:secret@a", "start with one of redis://, "),
        ("redis+proxy://secret@a", "start with one of redis://, "),
        ("redis://u:secret@a:x", "a port from 0 to 65535"),
        ("redis://u:secret@a:70000", "a port from 0 to 65535"),
        ("redis://u:secret@[a", "a port from 0 to 65535"),
        ("redis://u:secret@a,b", "name one host"),
        ("redis+cluster://u:secret@", "name its hosts"),
        ("redis+cluster://u:secret@a,,b", "name its hosts"),
        ("redis+cluster://u:secret@a/1", "name no database"),
        ("redis+sentinel://u:secret@a", "name the master"),
        ("redis+sentinel://u:secret@a/?db=1", "name the master"),
    ],
)
def test_an_unusable_address_is_refused_without_it(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        RedisAddress.parse(url)
    assert "secret" not in str(refused.value)


def test_no_password_is_shown() -> None:
    for url in ("redis://:secret@a", "redis+sentinel://:secret@a/m?sentinel_password=secret"):
        assert "secret" not in repr(RedisAddress.parse(url))
