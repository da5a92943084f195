"""Who an administrator is: own tokens, identity providers, modes, texts of refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.admin.admin_tokens import AdminTokenMint, AdminTokenSettings
from kbs.admin.authentication import (
    AdminAuthenticator,
    AdminMode,
    IdentityProvider,
    OwnTokens,
    parse_public_key,
)
from kbs.admin.authorization import EVERY_PERMISSION, NOTHING, Acl, Admin, Permission, Roles, Scope, authorize
from kbs.errors import (
    AdminForbidden,
    AdminUnauthenticated,
    ConfigInvalid,
    StorageUnavailable,
)
from kbs.tokens.keys import signing_key
from kbs.tokens.trust import TrustedKey
from tests.kbs.tokens import forge
from tests.kbs.tokens.forge import NOW, T, clock

VECTORS = Path(__file__).parents[2] / "vectors/tokens"
DOCUMENT = json.loads((VECTORS / "admin-vectors.json").read_text())
DIFFERENCES = json.loads((VECTORS / "differences.json").read_text())["admin-vectors.json"]

ADMIN_KEY = ed25519.Ed25519PrivateKey.generate()
KEY = signing_key(ADMIN_KEY)
SETTINGS = AdminTokenSettings()
OWN = OwnTokens(keys={KEY.kid: TrustedKey(KEY.public, KEY.alg)}, settings=SETTINGS, roles=Roles())
MINT = AdminTokenMint(KEY, SETTINGS, Roles(), clock)
NO_ISSUER = "Cannot verify token with any of the issuers"


class Revoked:
    """A list of revoked ids."""

    def __init__(self, *ids: str) -> None:
        self.ids = set(ids)

    def is_revoked(self, token_id: str) -> bool:
        return token_id in self.ids


def authenticator(
    *providers: IdentityProvider,
    own: OwnTokens | None = OWN,
    mode: AdminMode = AdminMode.AUTHENTICATED,
    at: Callable[[], datetime] = clock,
    revoked: Any = None,
) -> AdminAuthenticator:
    return AdminAuthenticator(mode, own, providers, revoked or Revoked(), at)


def stopped_at(moment: datetime) -> datetime:
    return moment


def own_token(header: dict[str, Any] | None = None, **changes: Any) -> str:
    claims = {
        "iss": "kbs-admin",
        "sub": "alice",
        "aud": "KBS",
        "role": "admin",
        "iat": T,
        "nbf": T,
        "exp": T + 3600,
        "jti": "id",
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not ...}
    full = {"alg": "EdDSA", "typ": "kbs-admin+jwt", "kid": KEY.kid, **(header or {})}
    full = {name: value for name, value in full.items() if value is not ...}
    return "Bearer " + forge.token(full, claims, forge.ed(ADMIN_KEY))


def refused(who: AdminAuthenticator, header: str | None, text: str = NO_ISSUER) -> str | None:
    """Checks the refusal and returns what the operator is told."""
    with pytest.raises(AdminUnauthenticated) as caught:
        who.authenticate(header)
    assert text in str(caught.value)
    return caught.value.operator_detail


# --- vectors ----------------------------------------------------------------------------------------------------------


def _vector_provider() -> IdentityProvider:
    provider = DOCUMENT["identity_provider"]
    return IdentityProvider(
        issuer=provider["issuer"],
        audience=provider["audience"],
        public_keys=(parse_public_key(provider["public_key_pem"].encode()),),
        max_life=timedelta(days=36_525),
        roles=Roles(acls=[Acl(acl["role"], acl["allowed_endpoints"]) for acl in DOCUMENT["acls"]]),
    )


@pytest.mark.parametrize("case", DOCUMENT["cases"], ids=[case["name"] for case in DOCUMENT["cases"]])
def test_vectors_of_the_field(case: Any) -> None:
    expected, text = case["allowed"], case["detail_contains"]
    if case["name"] in DIFFERENCES:
        assert DIFFERENCES[case["name"]]["reference"] == expected
        expected, text = DIFFERENCES[case["name"]]["ours"], NO_ISSUER
    who = authenticator(_vector_provider())
    path = case["request_target"]

    def run() -> None:
        authorize(who.authenticate(case["authorization"]), "POST", path, Permission.POLICY_WRITE)

    if expected:
        run()
    else:
        with pytest.raises((AdminUnauthenticated, AdminForbidden)) as caught:
            run()
        assert text in str(caught.value)
        assert isinstance(caught.value, AdminForbidden) == ("not allowed for path" in text)


def test_every_difference_names_a_vector() -> None:
    assert DIFFERENCES.keys() <= {case["name"] for case in DOCUMENT["cases"]}


# --- own tokens -------------------------------------------------------------------------------------------------------


def test_minted_token_comes_back() -> None:
    minted = MINT.mint("alice", "resource-writer", scope=["/kbs/v0/resource/team"])
    assert authenticator().authenticate(f"Bearer {minted.text}") == Admin(
        "alice",
        "resource-writer",
        minted.token_id,
        "kbs-admin",
        Roles().grant("resource-writer"),
        Scope.parse(["/kbs/v0/resource/team"]),
        NOW + timedelta(days=1),
    )


def test_own_token_of_a_p256_key() -> None:
    key = signing_key(ec.generate_private_key(ec.SECP256R1()))
    own = OwnTokens(keys={key.kid: TrustedKey(key.public, key.alg)}, settings=SETTINGS, roles=Roles())
    minted = AdminTokenMint(key, SETTINGS, Roles(), clock).mint("alice", "admin")
    assert authenticator(own=own).authenticate(f"Bearer {minted.text}").subject == "alice"
    refused(authenticator(), f"Bearer {minted.text}")


def test_own_token_ends_with_its_life() -> None:
    text = own_token()
    for seconds, accepted in ((3660, True), (3661, False), (-60, True), (-61, False)):
        moment = NOW + timedelta(seconds=seconds)
        who = authenticator(at=partial(stopped_at, moment))
        if accepted:
            who.authenticate(text)
        else:
            refused(who, text)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ...},
        {"iss": "TrusteeInDocker"},
        {"iss": ["kbs-admin"]},
        {"aud": ...},
        {"aud": "kbs"},
        {"aud": ["KBS"]},
        {"sub": ...},
        {"sub": ""},
        {"sub": 1},
        {"sub": "a\nb"},
        {"role": ...},
        {"role": ["admin"]},
        {"role": ""},
        {"role": None},
        {"jti": ...},
        {"jti": ""},
        {"jti": 7},
        {"jti": "x" * 257},
        {"iat": ...},
        {"exp": ...},
        {"exp": "4070908800"},
        {"exp": T + 8 * 86_400},
        {"nbf": T + 61},
        {"scope": "/kbs/v0/a"},
        {"scope": None},
        {"scope": [".*"]},
        {"scope": {}},
    ],
    ids=str,
)
def test_own_tokens_have_every_claim(changes: dict[str, Any]) -> None:
    authenticator().authenticate(own_token())
    refused(authenticator(), own_token(**changes))


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"typ": ...}, {"typ": 1}, {"alg": "ES256"}, {"kid": ...},
                                    {"kid": "keys/admin.pem"}, {"kid": "../../../dev/null"}], ids=str)  # fmt: skip
def test_own_tokens_have_their_header(header: dict[str, Any]) -> None:
    refused(authenticator(), own_token(header))


def test_unknown_roles_may_nothing() -> None:
    assert authenticator().authenticate(own_token(role="nobody")).grant is NOTHING


def test_revoked_ids_are_refused_and_a_dead_list_refuses_all() -> None:
    assert "revoked" in str(refused(authenticator(revoked=Revoked("id")), own_token()))
    authenticator(revoked=Revoked("other")).authenticate(own_token())

    class Dead:
        def is_revoked(self, token_id: str) -> bool:
            raise StorageUnavailable("the store is down")

    with pytest.raises(StorageUnavailable):
        authenticator(revoked=Dead()).authenticate(own_token())


# --- the header -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: None,
        lambda text: "",
        lambda text: "Bearer",
        lambda text: "Bearer ",
        lambda text: text.replace("Bearer", "bearer"),
        lambda text: text.replace("Bearer", "BEARER"),
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" ", ""),
        lambda text: " " + text,
        lambda text: text + " ",
        lambda text: text + "\n",
        lambda text: text + " x",
        lambda text: text + ", Basic eA==",
        lambda text: text + "\u00e9",
        lambda text: text.replace("Bearer", "Basic"),
    ],
)
def test_only_the_exact_scheme_is_read(mangle: Callable[[str], str | None]) -> None:
    refused(authenticator(), mangle(own_token()), "Failed to parse HTTP Auth Bearer header")


def test_size_is_bounded() -> None:
    assert "too large" in str(refused(authenticator(), own_token(extra="x" * 16_384)))


# --- modes ------------------------------------------------------------------------------------------------------------


def test_deny_all_looks_at_nothing() -> None:
    who = authenticator(mode=AdminMode.DENY_ALL)
    for header in (None, own_token()):
        with pytest.raises(AdminForbidden, match="Admin access denied as DenyAll authorization_mode is enabled"):
            who.authenticate(header)


def test_insecure_allow_all_says_so() -> None:
    admin = authenticator(mode=AdminMode.INSECURE_ALLOW_ALL).authenticate(None)
    assert admin.issuer == "insecure-allow-all"
    assert admin.grant.permissions == EVERY_PERMISSION
    authorize(admin, "POST", "/kbs/v0/resource/a/b/c", Permission.RESOURCE_WRITE)


def test_authenticated_mode_needs_somebody_to_trust() -> None:
    with pytest.raises(ConfigInvalid):
        authenticator(own=None)


# --- identity providers -----------------------------------------------------------------------------------------------

ES, ES384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
ROLES = Roles(acls=[Acl("admin", "^/kbs/v0/.+$")])


def provider(**changes: Any) -> IdentityProvider:
    settings: dict[str, Any] = {
        "issuer": "idp",
        "audience": "KBS",
        "keys": {"k": TrustedKey(ES.public_key(), "ES256")},
        "roles": ROLES,
        **changes,
    }
    return IdentityProvider(**settings)


def idp_token(signer: forge.Signer | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    claims = {"iss": "idp", "sub": "alice", "aud": "KBS", "role": "admin", "iat": T, "exp": T + 60, **changes}
    claims = {name: value for name, value in claims.items() if value is not ...}
    return "Bearer " + forge.token(header or {"alg": "ES256", "kid": "k"}, claims, signer or forge.es(ES))


def test_provider_tokens_and_what_they_may_lack() -> None:
    who = authenticator(provider())
    admin = who.authenticate(idp_token(jti="7"))
    assert (admin.subject, admin.role, admin.token_id, admin.issuer) == ("alice", "admin", "7", "idp")
    assert admin.grant == ROLES.grant("admin")
    assert who.authenticate(idp_token(iat=..., sub=...)).subject == ""
    assert who.authenticate(idp_token(aud=["x", "KBS"])).name == "alice"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "x"},
        {"iss": ...},
        {"iss": ["idp"]},
        {"aud": "x"},
        {"aud": ...},
        {"aud": {"KBS": 1}},
        {"aud": "KBSx"},
        {"aud": []},
        {"exp": ...},
        {"exp": True},
        {"exp": T - 61, "iat": T - 100},
        {"exp": T + 86_401},
        {"exp": T + 86_461, "iat": ...},
        {"nbf": T + 61},
        {"iat": T + 61, "exp": T + 100},
        {"iat": "now"},
        {"jti": 1},
        {"sub": "a\nb"},
    ],
    ids=str,
)
def test_provider_tokens_that_are_refused(changes: dict[str, Any]) -> None:
    refused(authenticator(provider()), idp_token(**changes))


def test_what_is_not_configured_is_not_compared() -> None:
    who = authenticator(provider(issuer=None, audience=None))
    assert who.authenticate(idp_token(iss=..., aud=...)).issuer == ""
    assert who.authenticate(idp_token(iss="x", aud="y")).issuer == "x"


@pytest.mark.parametrize("role", [..., None, "", ["admin"], 1, "a b", "a\n", "x" * 129])
def test_role_is_one_word_and_its_absence_ends_the_search(role: Any) -> None:
    """A later provider that would accept the token is not asked."""
    lenient = provider(issuer=None, audience=None)
    refused(authenticator(provider(), lenient), idp_token(role=role), "Missing required `role` claim in JWT")


def test_providers_are_tried_in_order() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    second = provider(issuer="second", keys={"k": TrustedKey(other.public_key(), "ES256")})
    who = authenticator(provider(), second)
    assert who.authenticate(idp_token()).issuer == "idp"
    assert who.authenticate(idp_token(forge.es(other), iss="second")).issuer == "second"
    detail = refused(who, idp_token(forge.es(other), iss="idp"))
    assert "idp: " in str(detail)
    assert "second: " in str(detail)


@pytest.mark.parametrize(
    ("public", "header", "signer"),
    [
        (ES, {"alg": "ES256"}, forge.es(ES)),
        (ES384, {"alg": "ES384"}, forge.es(ES384, hashes.SHA384())),
        (ADMIN_KEY, {"alg": "EdDSA"}, forge.ed(ADMIN_KEY)),
        (RSA, {"alg": "RS256"}, forge.rs(RSA, hashes.SHA256())),
        (RSA, {"alg": "PS256", "kid": "any"}, forge.ps(RSA, hashes.SHA256())),
    ],
    ids=lambda each: str(each) if isinstance(each, dict) else "",
)
def test_pem_keys_take_the_algorithms_of_their_family(public: Any, header: Any, signer: forge.Signer) -> None:
    pem = public.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    who = authenticator(provider(keys={}, public_keys=(parse_public_key(pem),)))
    assert who.authenticate(idp_token(signer, header)).subject == "alice"
    for alg in ("ES256", "ES384", "EdDSA", "RS256", "PS256", "RS512"):
        if alg != header["alg"]:
            refused(who, idp_token(signer, {**header, "alg": alg}))


def test_algorithms_are_the_provider_s() -> None:
    keys = {"k": TrustedKey(RSA.public_key(), "RS512")}
    text = idp_token(forge.rs(RSA, hashes.SHA512()), {"alg": "RS512", "kid": "k"})
    refused(authenticator(provider(keys=keys)), text)
    authenticator(provider(keys=keys, algorithms=frozenset({"RS512"}))).authenticate(text)


def test_a_jwk_is_for_its_own_algorithm_only() -> None:
    keys = {"k": TrustedKey(RSA.public_key(), "RS256")}
    who = authenticator(provider(keys=keys))
    who.authenticate(idp_token(forge.rs(RSA, hashes.SHA256()), {"alg": "RS256", "kid": "k"}))
    refused(who, idp_token(forge.ps(RSA, hashes.SHA256()), {"alg": "PS256", "kid": "k"}))


def test_public_key_of_the_provider_is_no_hmac_secret() -> None:
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    who = authenticator(provider(keys={}, public_keys=(RSA.public_key(),)))
    refused(who, idp_token(forge.hs256(pem), {"alg": "HS256"}))


@pytest.mark.parametrize(
    "settings",
    [{"keys": {}}, {"algorithms": frozenset()}, {"algorithms": frozenset({"HS256"})}],
)
def test_providers_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        provider(**settings)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        rsa.generate_private_key(65537, 1024)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ec.generate_private_key(ec.SECP521R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
)
def test_other_public_keys_are_refused(pem: bytes) -> None:
    with pytest.raises(ConfigInvalid):
        parse_public_key(pem)


def test_provider_may_not_speak_for_us() -> None:
    """A token of an identity provider in the shape of one of ours is neither."""
    refused(authenticator(provider()), idp_token(header={"alg": "ES256", "kid": "k", "typ": "kbs-admin+jwt"}))
    refused(authenticator(provider()), idp_token(header={"alg": "ES256", "kid": KEY.kid}))
