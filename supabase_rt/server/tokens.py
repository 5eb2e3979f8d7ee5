"""Tokens: signing and checking JWTs, and the rights on private topics.

See docs/protocol.md#5-tokens-and-private-channels.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

try:
    import jwt
except ImportError as _missing:  # pragma: no cover - the development environment has it
    raise ImportError(
        "the local server checks tokens with PyJWT; install it with: "
        "pip install 'supabase-rt[server]'"
    ) from _missing

if TYPE_CHECKING:
    from jwt.types import Options

__all__ = [
    "TEN_YEARS",
    "Policy",
    "Rights",
    "Token",
    "TokenError",
    "Tokens",
    "default_policy",
    "expired",
    "new_secret",
]

MIN_SECRET = 32
MAX_TOKEN = 65_536
"""Characters of a token; the header of a longer one would be read before its signature is."""
MOST_KEPT = 64
LONGEST_KEPT = 4_096
"""Verified tokens that are kept, and the characters of the longest of them."""
FAR_FUTURE = 1e12
TEN_YEARS = 315_360_000.0
CHECKS: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
LONGER = ["HS384", "HS512"]
SIGNER = "Failed to generate JWT signer{}, check your JWT secret or JWKS configuration"
MISSING_CLAIMS = "Fields `role` and `exp` are required in JWT"


def new_secret() -> str:
    """Returns a random secret to sign tokens with; its prefix lets secret scanners find it."""
    return f"srt_jwt_{secrets.token_urlsafe(48)}"


class TokenError(Exception):
    """A token was refused; the protocol has different words for it in different places.

    ``code`` and the message form the reason of a refused join. ``handshake`` is the text in an
    HTTP body, ``system`` the text of a system message.
    """

    def __init__(
        self, code: str, message: str, *, handshake: str | None = None, system: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.handshake: str = handshake or message
        self.system: str = system or message

    @property
    def reason(self) -> str:
        """The reason of a refused join."""
        return f"{self.code}: {self}"


def expired(exp: float, now: float) -> TokenError:
    """Returns the error for a token whose ``exp`` has passed."""
    ago = max(0, int(now - max(exp, -FAR_FUTURE)))
    message = f"Token has expired {ago} seconds ago"
    return TokenError("InvalidJWTToken", message, handshake="Token has expired")


@dataclasses.dataclass(frozen=True)
class Token:
    """A verified token."""

    text: str
    claims: Mapping[str, Any]
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The ``x-`` headers that came with it, for policies that read them."""

    @property
    def role(self) -> str:
        """The Postgres role that the token speaks for."""
        return str(self.claims["role"])

    @property
    def exp(self) -> float:
        """The time it expires, in seconds since 1970."""
        return float(min(self.claims["exp"], FAR_FUTURE))


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        # PyJWT accepts NaN and Infinity, which are not JSON; a token with them never expires.
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _key_named(text: str) -> str:
    """Returns the end of the error text: the id of the public key, which this server lacks."""
    header = jwt.get_unverified_header(text)
    asks = "kid" in header and str(header.get("alg")).startswith(("RS", "ES", "Ed"))
    return f' for key ID (kid) "{header["kid"]}"' if asks else ""


class Tokens:
    """Signs and verifies the tokens of one server, by default with a random secret."""

    def __init__(self, secret: str | None = None) -> None:
        secret = new_secret() if secret is None else secret
        if len(secret.encode()) < MIN_SECRET:
            # PyJWT would only warn, and again at every token.
            raise ValueError(f"jwt_secret must have at least {MIN_SECRET} bytes, as for Supabase")
        self._secret = secret
        self._verified: dict[str, dict[str, Any]] = {}

    def mint(self, claims: Mapping[str, Any]) -> str:
        """Returns a token with exactly these claims, signed with HS256."""
        return jwt.encode(dict(claims), self._secret, algorithm="HS256")

    def issue(
        self,
        role: str,
        *,
        now: float,
        sub: str | None = None,
        expires_in: float = 3600.0,
        **claims: Any,
    ) -> str:
        """Returns a token for ``role`` that expires ``expires_in`` seconds after ``now``."""
        exp = now + expires_in
        # Whole seconds, as usual in tokens; short-lived tokens of tests keep their fraction.
        moment = exp if abs(expires_in) < 10 else math.floor(exp)
        base = {"role": role, "iss": "supabase-rt", "iat": math.floor(now), "exp": moment}
        if sub is not None:
            base["sub"] = sub
        return self.mint(base | claims)

    def verify(self, text: str, now: float) -> Token:
        """Check a token as the real server does; raises ``TokenError``.

        The real server rounds ``exp``. Here it keeps its fraction, so that a test can have a
        token that lives for 0.2 s.
        """
        # White space is dropped: a client could add any amount, which each channel would keep.
        text = "".join(text.split()) if len(text) <= MAX_TOKEN else ""
        claims = self._claims(text)
        if not isinstance(claims.get("role"), str) or not _is_number(claims.get("exp")):
            raise TokenError("InvalidJWTToken", MISSING_CLAIMS)
        if not _is_number(claims.get("iat", 0)):
            raise TokenError(
                "UnknownErrorOnChannel",
                "Unknown Error on Channel",
                handshake="Error connecting to Realtime",
            )
        if claims["exp"] <= now:
            raise expired(claims["exp"], now)
        return Token(text, claims)

    def _decode(self, text: str) -> dict[str, Any]:
        try:
            return dict(jwt.decode_complete(text, self._secret, ["HS256"], CHECKS)["payload"])
        except jwt.InvalidAlgorithmError:
            if jwt.get_unverified_header(text).get("alg") not in LONGER:
                raise
        with warnings.catch_warnings():
            # PyJWT warns because Supabase's secrets are shorter than it wants for these.
            warnings.simplefilter("ignore")
            return dict(jwt.decode_complete(text, self._secret, LONGER, CHECKS)["payload"])

    def _claims(self, text: str) -> dict[str, Any]:
        known = self._verified.get(text)
        if known is not None:
            return known
        try:
            # Only the signature: the rules for the claims differ from PyJWT's.
            claims = self._decode(text)
        except jwt.InvalidSignatureError:
            problem = TokenError(
                "JwtSignatureError", "Failed to validate JWT signature", system=":signature_error"
            )
        except jwt.InvalidAlgorithmError:
            problem = TokenError("JwtSignerError", SIGNER.format(_key_named(text)))
        except (jwt.PyJWTError, UnicodeError, RecursionError):
            problem = TokenError("MalformedJWT", "The token provided is not a valid JWT")
        else:
            self._remember(text, claims)
            return claims
        try:
            raise problem
        finally:
            # Otherwise this frame and the exception hold each other, and so the callers' large
            # frames.
            del problem

    def _remember(self, text: str, claims: dict[str, Any]) -> None:
        """Keep the claims of a good signature: clients send one token with every join."""
        if len(text) <= LONGEST_KEPT:
            if len(self._verified) >= MOST_KEPT:
                del self._verified[next(iter(self._verified))]
            self._verified[text] = claims


@dataclasses.dataclass(frozen=True)
class Rights:
    """The rights of one token on one private topic.

    See docs/protocol.md#rights-on-a-private-channel.
    """

    broadcast_read: bool = True
    broadcast_write: bool = True
    presence_read: bool = True
    presence_write: bool = True

    @classmethod
    def none(cls) -> Rights:
        """Returns no rights at all; the join is refused."""
        return cls(False, False, False, False)

    @classmethod
    def read(cls) -> Rights:
        """Returns the right to listen only."""
        return cls(broadcast_write=False, presence_write=False)


Policy = Callable[[str, Mapping[str, Any], str], Rights | bool]
"""Called with role, claims and sub-topic; returns the rights, or True for all and False for
none.
"""


def default_policy(role: str, claims: Mapping[str, Any], sub_topic: str) -> Rights:
    """Give signed-in users and the service all rights on private topics, and others none."""
    return Rights() if role in ("authenticated", "service_role") else Rights.none()
