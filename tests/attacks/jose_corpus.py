"""Attack corpus for everything that takes a token: P-JOSE-1 to 4, for attestation and admin tokens alike.

Each row is one way to be dishonest, made for both kinds of token and with the header's members in any order. Rows know
nothing of what refuses them, so that every entry point can be tried with the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto import jwe, jwk

from kbs.admin.admin_tokens import AdminTokenSettings
from kbs.admin.authentication import AdminAuthenticator, AdminMode, IdentityProvider, OwnTokens
from kbs.admin.authorization import Roles
from kbs.errors import AdminUnauthenticated, PeerFault, TokenRejected
from kbs.tokens.acceptor import TokenAcceptor
from kbs.tokens.keys import KeyRing, signing_key
from kbs.tokens.trust import Trust, TrustedIssuer, TrustedKey, own_issuer
from tests.kbs.tokens import forge
from tests.kbs.tokens.forge import T, b64u, clock, ear

P256 = ec.generate_private_key(ec.SECP256R1())
MALLORY = ec.generate_private_key(ec.SECP256R1())
MALLORY_ED = ed25519.Ed25519PrivateKey.generate()
MALLORY_RSA = rsa.generate_private_key(65537, 2048)
RING = KeyRing(signing_key(P256))
KID = RING.signing.kid
FOREIGN_RSA = rsa.generate_private_key(65537, 2048)
FOREIGN = TrustedKey(FOREIGN_RSA.public_key(), "RS256")


class _Nothing:
    def is_revoked(self, token_id: str) -> bool:
        return False


ACCEPTOR = TokenAcceptor(
    Trust(
        own_issuer(RING),
        (TrustedIssuer(name="foreign", keys={"rsa": FOREIGN}, algorithms=frozenset({"RS256", "ES256"})),),
    ),
    clock,
    cache_size=0,
)
SETTINGS = AdminTokenSettings()
AUTHENTICATOR = AdminAuthenticator(
    AdminMode.AUTHENTICATED,
    OwnTokens(keys={KID: TrustedKey(P256.public_key(), "ES256")}, settings=SETTINGS, roles=Roles()),
    [
        IdentityProvider(
            issuer="foreign", audience="KBS", keys={"rsa": FOREIGN}, public_keys=(P256.public_key(),),
            algorithms=frozenset({"RS256", "ES256"}), roles=Roles(),
        )
    ],
    _Nothing(),
    clock,
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One door that takes tokens."""

    name: str
    typ: str
    claims: Callable[..., dict[str, Any]]
    accept: Callable[[str], object]
    refusal: type[PeerFault]
    limit: int
    max_life: int


def _admin_claims(**changes: Any) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "iss": "kbs-admin",
        "sub": "alice",
        "aud": "KBS",
        "role": "admin",
        "iat": T,
        "nbf": T,
        "exp": T + 300,
        "jti": "id",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not ...}


KINDS = [
    Kind("attestation", "JWT", ear, ACCEPTOR.accept, TokenRejected, 96 << 10, 3600),
    Kind(
        "admin",
        "kbs-admin+jwt",
        _admin_claims,
        lambda text: AUTHENTICATOR.authenticate(f"Bearer {text}"),
        AdminUnauthenticated,
        16 << 10,
        int(SETTINGS.max_life.total_seconds()),
    ),
]

Row = Callable[[Kind, "Order"], str]
Order = Callable[[dict[str, Any]], dict[str, Any]]

ORDERS: dict[str, Order] = {
    "as-written": lambda header: header,
    "reversed": lambda header: dict(reversed(header.items())),
    "sorted": lambda header: dict(sorted(header.items())),
}
ROWS: dict[str, Row] = {}

value: Any


def honest_header(kind: Kind, **changes: Any) -> dict[str, Any]:
    """Header of a good token; a change to `...` drops the member."""
    header = {"alg": "ES256", "typ": kind.typ, "kid": KID, **changes}
    return {name: value for name, value in header.items() if value is not ...}


def _signed_by_us(name: str, **changes: Any) -> None:
    """Our own key signs, so the header alone is wrong."""
    ROWS[f"header: {name}"] = lambda kind, order: forge.token(
        order(honest_header(kind, **changes)), kind.claims(), forge.es(P256)
    )


def _signed_otherwise(name: str, signer: forge.Signer, **changes: Any) -> None:
    ROWS[f"signature: {name}"] = lambda kind, order: forge.token(
        order(honest_header(kind, **changes)), kind.claims(), signer
    )


def _claiming(name: str, **changes: Any) -> None:
    ROWS[f"claims: {name}"] = lambda kind, order: forge.token(
        order(honest_header(kind)), kind.claims(**changes), forge.es(P256)
    )


def _mangled(name: str, mangle: Callable[[str, str, str], str]) -> None:
    def row(kind: Kind, order: Order) -> str:
        head, body, signature = forge.token(order(honest_header(kind)), kind.claims(), forge.es(P256)).split(".")
        return mangle(head, body, signature)

    ROWS[f"shape: {name}"] = row


# --- P-JOSE-1: the verifier chooses key and algorithm -----------------------------------------------------------------

PUBLIC_PEM = P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PUBLIC_DER = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PUBLIC_POINT = P256.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
RSA_PEM = FOREIGN_RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
JWK_TEXT = json.dumps(RING.signing.jwk()).encode()

for spelling in ("none", "None", "NONE", "nOnE", ""):
    _signed_otherwise(f"alg {spelling!r} without signature", forge.no_signature, alg=spelling)
    _signed_otherwise(f"alg {spelling!r} with a good signature", forge.es(P256), alg=spelling)
for label, secret in {"pem": PUBLIC_PEM, "der": PUBLIC_DER, "point": PUBLIC_POINT, "jwk": JWK_TEXT, "empty": b"",
                      "kid": KID.encode(), "pem-stripped": PUBLIC_PEM.strip()}.items():  # fmt: skip
    _signed_otherwise(f"public key as HMAC key, {label}", forge.hs256(secret), alg="HS256")
_signed_otherwise("foreign public key as HMAC key", forge.hs256(RSA_PEM), alg="HS256", kid="rsa")
for alg in ("HS384", "HS512", "ES384", "ES512", "ES256K", "EdDSA", "RS256", "PS256", "RS384", "es256", "RSA-OAEP",
            "dir", "PBES2-HS256+A128KW", "\u0045S256 ", "ES256\x00"):  # fmt: skip
    _signed_otherwise(f"our signature called {alg!r}", forge.es(P256), alg=alg)
for label, value in {"missing": ..., "null": None, "list": ["ES256"], "number": 256, "object": {"alg": "ES256"},
                     "true": True}.items():  # fmt: skip
    _signed_otherwise(f"alg is {label}", forge.es(P256), alg=value)
_signed_otherwise("stranger's key, our kid", forge.es(MALLORY))
_signed_otherwise("stranger's Ed25519 key", forge.ed(MALLORY_ED), alg="EdDSA")
_signed_otherwise("stranger's RSA key", forge.rs(MALLORY_RSA, hashes.SHA256()), alg="RS256")
_signed_otherwise(
    "stranger's RSA key under a foreign kid", forge.rs(MALLORY_RSA, hashes.SHA256()), alg="RS256", kid="rsa"
)
_signed_otherwise("our key under a foreign kid", forge.es(P256), kid="rsa")
_signed_otherwise("foreign key in our name", forge.rs(FOREIGN_RSA, hashes.SHA256()), alg="RS256", kid="rsa")
_signed_otherwise("PSS where PKCS1 is configured", forge.ps(FOREIGN_RSA, hashes.SHA256()), alg="PS256", kid="rsa")
_signed_otherwise("another digest", forge.es(P256, hashes.SHA384()))
_signed_otherwise("DER instead of raw", forge.der(P256))
_signed_otherwise("zeros", lambda _: bytes(64))
_signed_otherwise("ones", lambda _: b"\xff" * 64)
_signed_otherwise("r and s exchanged", lambda data: forge.es(P256)(data)[32:] + forge.es(P256)(data)[:32])
_signed_otherwise("one octet short", lambda data: forge.es(P256)(data)[:-1])
_signed_otherwise("one octet long", lambda data: forge.es(P256)(data) + b"\x00")
_signed_otherwise("a leading zero", lambda data: b"\x00" + forge.es(P256)(data))
_signed_otherwise("over other bytes", lambda data: forge.es(P256)(data + b"."))

# --- P-JOSE-2: keys and addresses in the header are never followed ----------------------------------------------------

MALLORY_JWK = signing_key(MALLORY).jwk()
BRINGS: dict[str, dict[str, Any]] = {
    "jwk": {"jwk": MALLORY_JWK},
    "jwk with our kid inside": {"jwk": {**MALLORY_JWK, "kid": KID}},
    "jwk with an empty x5c": {"jwk": {**MALLORY_JWK, "x5c": []}},
    "jwk with garbage in x5c": {"jwk": {**MALLORY_JWK, "x5c": ["AAAA"]}},
    "symmetric jwk": {"jwk": {"kty": "oct", "k": "AAAA", "alg": "HS256"}},
    "jwk that is no object": {"jwk": "https://evil.example/key"},
    "jku": {"jku": "https://evil.example/jwks.json"},
    "jku to a file": {"jku": "file:///etc/passwd"},
    "x5u": {"x5u": "https://evil.example/chain.pem"},
    "x5c": {"x5c": ["AAAA"]},
    "x5t": {"x5t": "AAAA", "x5t#S256": "AAAA"},
}
for label, extra in BRINGS.items():
    _signed_otherwise(f"stranger brings {label}, our kid", forge.es(MALLORY), **extra)
    _signed_otherwise(f"stranger brings {label}, no kid", forge.es(MALLORY), kid=..., **extra)
TRICKS = ("../../keys/admin.pem", "/dev/null", "file:///dev/null", "https://evil.example/k", "' OR 1=1 --", "\x00", "*",
          "${jndi:ldap://evil}", KID + " ", KID.lower(), KID + "\x00", "k" * 513)  # fmt: skip
for number, kid in enumerate(TRICKS):
    _signed_otherwise(f"kid as a path or a trick, {number}", forge.hs256(b""), alg="ES256", kid=kid)
    _signed_by_us(f"kid as a path or a trick, {number}", kid=kid)
for label, value in {"number": 1, "null": None, "list": [KID], "object": {"kid": KID}, "empty": ""}.items():
    _signed_by_us(f"kid is {label}", kid=value)

# --- P-JOSE-3: time, issuer, audience ---------------------------------------------------------------------------------

for claim in ("exp", "iat"):
    for label, value in {"missing": ..., "text": str(T + 100), "1e308": 1e308, "true": True, "false": False,
                         "null": None, "list": [T + 100], "object": {}, "negative": -1, "63 digits": 10**62,
                         "2^64": 2**64, "year 10000": 253_402_300_800, "empty text": "", "float -0.5": -0.5,
                         "text 1e308": "1e308"}.items():  # fmt: skip
        _claiming(f"{claim} is {label}", **{claim: value})
for label, value in {"text": str(T), "1e308": 1e308, "true": True, "null": None, "far": T + 10**6,
                     "61 s ahead": T + 61, "huge": 10**60}.items():  # fmt: skip
    _claiming(f"nbf is {label}", nbf=value)
_claiming("expired by 61 s", exp=T - 61, iat=T - 200, nbf=T - 200)
_claiming("issued 61 s ahead", iat=T + 61, exp=T + 200)
_claiming("expires when issued", exp=T, iat=T)
_claiming("expires before it was issued", exp=T - 10, iat=T)
ROWS["claims: life over the maximum"] = lambda kind, order: forge.token(
    order(honest_header(kind)), kind.claims(exp=T + kind.max_life + 1), forge.es(P256)
)
for label, value in {"missing": ..., "other": "https://evil.example", "foreign": "foreign", "list": ["kbs-admin"],
                     "null": None, "padded": "kbs-admin ", "case": "KBS-ADMIN", "empty": ""}.items():  # fmt: skip
    _claiming(f"iss is {label}", iss=value)
ROWS["claims: the other kind's"] = lambda kind, order: forge.token(
    order(honest_header(kind)), next(other for other in KINDS if other is not kind).claims(), forge.es(P256)
)
ROWS["token of the other kind"] = lambda kind, order: forge.token(
    order(honest_header(next(other for other in KINDS if other is not kind))),
    next(other for other in KINDS if other is not kind).claims(),
    forge.es(P256),
)

# --- P-JOSE-4: shapes -------------------------------------------------------------------------------------------------

HEADERS: dict[str, dict[str, Any]] = {
    "crit empty": {"crit": []},
    "crit unknown": {"crit": ["x"], "x": 1},
    "crit of a registered member": {"crit": ["alg"]},
    "crit that is text": {"crit": "exp"},
    "b64 false": {"b64": False, "crit": ["b64"]},
    "b64 false without crit": {"b64": False},
    "b64 true": {"b64": True},
    "zip": {"zip": "DEF"},
    "enc": {"enc": "A256GCM"},
    "nested by cty": {"cty": "JWT"},
    "typ JWE": {"typ": "JWE"},
    "typ JOSE": {"typ": "JOSE"},
    "typ of something else": {"typ": "secevent+jwt"},
    "typ number": {"typ": 1},
}
for label, changes in HEADERS.items():
    _signed_by_us(label, **changes)


def _rawhonest_header(name: str, write: Callable[[str], str]) -> None:
    ROWS[f"header: {name}"] = lambda kind, order: forge.token(
        write(json.dumps(order(honest_header(kind)))).encode(), kind.claims(), forge.es(P256)
    )


_rawhonest_header("alg twice", lambda text: text.replace("{", '{"alg":"none",', 1))
_rawhonest_header("kid twice", lambda text: text.replace("{", '{"kid":"x",', 1))
_rawhonest_header("kid twice, escaped", lambda text: text.replace("{", '{"k\\u0069d":"x",', 1))
_rawhonest_header("typ twice", lambda text: text[:-1] + ',"typ":"JWT"}')
_rawhonest_header("trailing data", lambda text: text + "{}")
_rawhonest_header("byte order mark", lambda text: "\ufeff" + text)
_rawhonest_header("a list around it", lambda text: f"[{text}]")
_rawhonest_header("text around it", json.dumps)
_rawhonest_header("NaN", lambda text: text[:-1] + ',"x":NaN}')
_rawhonest_header("lone surrogate", lambda text: text[:-1] + ',"x":"\\ud800"}')
_rawhonest_header("very deep", lambda text: text[:-1] + ',"x":' + "[" * 500 + "]" * 500 + "}")
_rawhonest_header("cut short", lambda text: text[:-1])
_rawhonest_header("comment", lambda text: text + "//")


def _raw_claims(name: str, write: Callable[[str], str]) -> None:
    ROWS[f"claims: {name}"] = lambda kind, order: forge.token(
        order(honest_header(kind)), write(json.dumps(kind.claims())).encode("utf-8", "surrogatepass"), forge.es(P256)
    )


_raw_claims("exp twice", lambda text: text.replace("{", '{"exp":1,', 1))
_raw_claims("iss twice", lambda text: text[:-1] + ',"iss":"kbs-admin"}')
_raw_claims("role twice", lambda text: text[:-1] + ',"role":"auditor","role":"admin"}')
_raw_claims("exp is 1e999", lambda text: text.replace(f'"exp": {T + 300}', '"exp": 1e999'))
_raw_claims("exp is Infinity", lambda text: text.replace(f'"exp": {T + 300}', '"exp": Infinity'))
_raw_claims("exp is NaN", lambda text: text.replace(f'"exp": {T + 300}', '"exp": NaN'))
_raw_claims("exp of 4000 digits", lambda text: text.replace(f'"exp": {T + 300}', '"exp": 1' + "0" * 4000))
_raw_claims("trailing data", lambda text: text + " x")
_raw_claims("list", lambda text: f"[{text}]")
_raw_claims("text", json.dumps)
_raw_claims("empty", lambda text: "")
_raw_claims("null", lambda text: "null")
_raw_claims("empty object", lambda text: "{}")
_raw_claims("not UTF-8", lambda text: text[:-1] + ',"x":"\ud800"}')
_raw_claims("very deep", lambda text: text[:-1] + ',"x":' + "[" * 500 + "]" * 500 + "}")
_raw_claims("a token in it", lambda text: json.dumps(forge.token({"alg": "ES256", "kid": KID}, {}, forge.es(P256))))

_mangled("no signature part", lambda head, body, signature: f"{head}.{body}")
_mangled("empty signature", lambda head, body, signature: f"{head}.{body}.")
_mangled("empty payload", lambda head, body, signature: f"{head}..{signature}")
_mangled("four parts", lambda head, body, signature: f"{head}.{body}.{signature}.{body}")
_mangled("five parts", lambda head, body, signature: f"{head}.{body}.{body}.{body}.{signature}")
_mangled("padding on the header", lambda head, body, signature: f"{head}=.{body}.{signature}")
_mangled("padding on the signature", lambda head, body, signature: f"{head}.{body}.{signature}==")
_mangled("space at the end", lambda head, body, signature: f"{head}.{body}.{signature} ")
_mangled("newline at the end", lambda head, body, signature: f"{head}.{body}.{signature}\n")
_mangled("newline inside", lambda head, body, signature: f"{head}.{body[:9]}\n{body[9:]}.{signature}")
_mangled("tab at the start", lambda head, body, signature: f"\t{head}.{body}.{signature}")
_mangled("zero octet", lambda head, body, signature: f"{head}.{body}.{signature}\x00")
_mangled("wide letters", lambda head, body, signature: f"{head}.{body}.{chr(0xFF21)}{signature[1:]}")
_mangled("standard alphabet", lambda head, body, signature: f"{head}.{body}.+/{signature[2:]}")
_mangled(
    "unused bits set",
    lambda head, body, signature: f"{head}.{body}.{signature[:-1]}" + "BRhx"["AQgw".index(signature[-1])],
)
_mangled("parts in another order", lambda head, body, signature: f"{body}.{head}.{signature}")
_mangled(
    "payload of another token",
    lambda head, body, signature: f"{head}.{b64u(json.dumps(ear(jti='x')).encode())}.{signature}",
)
_mangled("header of another token", lambda head, body, signature: f"{b64u(b'{}')}.{body}.{signature}")
_mangled(
    "flattened JSON",
    lambda head, body, signature: json.dumps({"protected": head, "payload": body, "signature": signature}),
)
_mangled(
    "general JSON",
    lambda head, body, signature: json.dumps(
        {"payload": body, "signatures": [{"protected": head, "signature": signature}]}
    ),
)
_mangled(
    "JSON without white space",
    lambda head, body, signature: json.dumps(
        {"protected": head, "payload": body, "signature": signature}, separators=(",", ":")
    ),
)
_mangled(
    "JSON in base64url",
    lambda head, body, signature: b64u(
        json.dumps({"protected": head, "payload": body, "signature": signature}).encode()
    ),
)
_mangled("scheme twice", lambda head, body, signature: f"Bearer {head}.{body}.{signature}")
_mangled("quoted", lambda head, body, signature: f'"{head}.{body}.{signature}"')
_mangled(
    "nested",
    lambda head, body, signature: forge.token(
        {"alg": "ES256", "kid": KID, "typ": "JWT"}, f"{head}.{body}.{signature}".encode(), forge.es(P256)
    ),
)
ROWS["shape: over the limit by one octet or more"] = lambda kind, order: forge.token(
    order(honest_header(kind)), kind.claims(padding="x" * kind.limit), forge.es(P256)
)


def _jwe(kind: Kind, order: Order) -> str:
    """Encrypted to our own public key by somebody who knows nothing else (P-JOSE-4: a JWE where a JWS was meant)."""
    key = jwk.JWK.from_pyca(P256.public_key())
    header = order({"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "kid": KID, "cty": "JWT"})
    sealed = jwe.JWE(json.dumps(kind.claims()).encode(), json.dumps(header), recipient=key)
    return str(sealed.serialize(compact=True))


ROWS["shape: JWE"] = _jwe
ROWS["shape: JWE header on a JWS"] = lambda kind, order: forge.token(
    order({"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "kid": KID}), kind.claims(), forge.es(P256)
)
