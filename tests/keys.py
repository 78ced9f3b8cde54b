"""Keys for tests: one per scope, and a secret for user tokens."""

from collections.abc import Iterable
from pathlib import Path

from service.api_keys import entry_text
from service.scopes import SCOPES
from service.user_tokens import issue_user_token

SECRET_NAME = "2026-11"  # noqa: S105 (of these tests only)
SECRET = "a secret of the tests, which protects nothing"  # noqa: S105
KEYS: dict[str, str] = {scope: f"cofine_of_the_tests_{scope}" for scope in SCOPES}
"""Scope -> key that has it and no other."""
SECRETS_TEXT = f'[[user_token_secrets]]\nname = "{SECRET_NAME}"\nsecret = "{SECRET}"\n'


def write_keys(folder: Path, entries: Iterable[str] | None = None) -> Path:
    """A keys file with these entries, or one key of every scope."""
    if entries is None:
        entries = [entry_text(f"key-{scope}", key, [scope]) for scope, key in KEYS.items()]
    path = folder / "keys.toml"
    path.write_text("\n".join([*entries, SECRETS_TEXT]), encoding="utf-8")
    return path


def headers_of(scope: str, user_id: str = "u-17") -> dict[str, str]:
    """What a client with a key of this scope sends; a publishable one acts for `user_id`."""
    headers = {"Authorization": f"Bearer {KEYS[scope]}"}
    if scope == "publishable":
        headers["X-User-Token"] = issue_user_token(SECRET_NAME, SECRET, user_id)
    return headers
