"""User tokens: what a web page shows beside its publishable key to act for one user.

A token is a JSON Web Token (RFC 7519) signed with HS256, so that any language has a library for it.
The shop's backend issues it to a visitor whom it knows:

    header   alg HS256, kid = name of the secret
    claims   aud "cofine", sub = user id, iat and exp in seconds of Unix time

`issue_user_token` is the reference. A token lives an hour at most, whatever its issuer wishes.
While a secret is exchanged the keys file holds both.
"""

import time
from collections.abc import Sequence

import jwt

from service.api_keys import UserTokenSecret
from service.errors import UnauthenticatedError

AUDIENCE = "cofine"
ALGORITHM = "HS256"
LIFETIME_MAX_SECONDS = 3_600
CLOCK_SKEW_SECONDS = 30
"""How far the backend's clock may be ahead."""
_ID_MAX = 256
_TOKEN_MAX_CHARACTERS = 4_096


def issue_user_token(
    secret_name: str, secret: str, user_id: str, *, lifetime_seconds: int = 900
) -> str:
    """Return a token for one user; this runs in the shop's backend, which alone has the secret."""
    now = int(time.time())
    claims = {"aud": AUDIENCE, "sub": user_id, "iat": now, "exp": now + lifetime_seconds}
    return jwt.encode(claims, secret, algorithm=ALGORITHM, headers={"kid": secret_name})


def user_of_token(token: str, known: Sequence[UserTokenSecret]) -> str:
    """Return the user id that a valid token names.

    Raises:
        UnauthenticatedError: forged, expired, for something else, or with too long a life.
    """
    try:
        if len(token) > _TOKEN_MAX_CHARACTERS:
            raise jwt.InvalidTokenError
        claims = jwt.decode(
            token,
            _secret(token, known),
            algorithms=[ALGORITHM],  # never the token's own choice
            audience=AUDIENCE,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": ["aud", "sub", "iat", "exp"]},
        )
        if claims["exp"] - claims["iat"] > LIFETIME_MAX_SECONDS:
            raise jwt.InvalidTokenError
        user_id = claims["sub"]
        if not 0 < len(user_id) <= _ID_MAX:
            raise jwt.InvalidTokenError
    except (jwt.InvalidTokenError, TypeError, ValueError, OverflowError):
        raise UnauthenticatedError(
            "bad_user_token",
            "the user token is not valid or not any more; have the shop's backend issue another",
        ) from None
    return str(user_id)


def _secret(token: str, known: Sequence[UserTokenSecret]) -> str:
    """Return the secret that the token says it was signed with."""
    named = jwt.get_unverified_header(token).get("kid")
    for each in known:
        if each.name == named:
            return each.secret.get_secret_value()
    raise jwt.InvalidTokenError
