"""Making admin tokens, for oneself and on behalf of others."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwcrypto import jwk, jws

from kbs.admin.admin_tokens import AdminTokenMint, AdminTokenSettings
from kbs.admin.authorization import NOTHING, Acl, Admin, Permission, Roles, Scope
from kbs.errors import AdminForbidden, ConfigInvalid, NameNotAllowed
from kbs.tokens.keys import signing_key
from tests.kbs.tokens.forge import NOW, T, clock, unb64u

KEY = signing_key(ed25519.Ed25519PrivateKey.generate())
ROLES = Roles()
MINT = AdminTokenMint(KEY, AdminTokenSettings(), ROLES, clock, random=bytes)


def _claims(text: str) -> Any:
    return json.loads(unb64u(text.split(".")[1]))


@pytest.mark.parametrize("private", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())])
def test_another_library_reads_it(private: Any) -> None:
    key = signing_key(private)
    minted = AdminTokenMint(key, AdminTokenSettings(), ROLES, clock).mint("alice", "admin")
    read = jws.JWS()
    read.allowed_algs = [key.alg]
    read.deserialize(minted.text, jwk.JWK.from_pyca(private.public_key()))
    assert json.loads(read.jose_header if isinstance(read.jose_header, str) else json.dumps(read.jose_header)) == {
        "alg": key.alg,
        "typ": "kbs-admin+jwt",
        "kid": key.kid,
    }
    assert json.loads(read.payload) == {
        "iss": "kbs-admin",
        "sub": "alice",
        "aud": "KBS",
        "role": "admin",
        "iat": T,
        "nbf": T,
        "exp": T + 86_400,
        "jti": minted.token_id,
    }
    assert minted.expires == NOW + timedelta(days=1)
    assert minted.text not in repr(minted)


def test_ids_are_random() -> None:
    mint = AdminTokenMint(KEY, AdminTokenSettings(), ROLES, clock)
    assert len({mint.mint("alice", "admin").token_id for _ in range(100)}) == 100
    token_id = mint.mint("alice", "admin").token_id
    assert len(bytes.fromhex(token_id)) == 16  # hex: no id looks like an option on a command line


def test_file_content_is_a_bearer_token_as_it_is() -> None:
    assert MINT.mint("alice", "admin").text.strip().isascii()
    assert len(MINT.mint("alice", "admin").text.split()) == 1


def test_scope_and_lifetime_are_written() -> None:
    minted = MINT.mint("alice", "resource-writer", timedelta(hours=1), ["/kbs/v0/resource/team"])
    assert _claims(minted.text)["scope"] == ["/kbs/v0/resource/team"]
    assert _claims(minted.text)["exp"] == T + 3600
    assert _claims(MINT.mint("alice", "admin", scope=[]).text)["scope"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"subject": ""},
        {"subject": "a b"},
        {"subject": "a\n"},
        {"subject": "-a"},
        {"subject": "a" * 129},
        {"subject": "é"},
        {"role": "nobody"},
        {"role": ""},
        {"role": "admin\n"},
        {"lifetime": timedelta(0)},
        {"lifetime": timedelta(seconds=-1)},
        {"lifetime": timedelta(milliseconds=999)},
        {"lifetime": timedelta(days=7, seconds=1)},
        {"lifetime": timedelta.max},
        {"scope": ["x"]},
        {"scope": ["^/kbs/a|/b$"]},
        {"scope": ["/kbs/" + "a" * 400] * 40},
    ],
)
def test_other_requests_are_refused(arguments: dict[str, Any]) -> None:
    request: dict[str, Any] = {"subject": "alice", "role": "admin", **arguments}
    MINT.mint("alice", "admin", timedelta(days=7))
    with pytest.raises(NameNotAllowed):
        MINT.mint(**request)


@pytest.mark.parametrize(
    "settings",
    [{"name": ""}, {"audience": ""}, {"lifetime": timedelta(0)}, {"lifetime": timedelta(days=8)}],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        AdminTokenSettings(**settings)


def _asker(role: str, scope: list[str] | None = None, roles: Roles = ROLES) -> Admin:
    return Admin("bob", role, "id", "kbs-admin", roles.grant(role), None if scope is None else Scope.parse(scope))


ISSUING = Roles({**{"lead": frozenset({Permission.TOKEN_ISSUE, Permission.POLICY_WRITE, Permission.POLICY_READ,
                                       Permission.REFERENCE_READ})}})  # fmt: skip
TEAM = ["/kbs/v0/resource/team"]


@pytest.mark.parametrize(
    ("asker", "role", "scope", "allowed"),
    [
        (_asker("admin"), "admin", None, True),
        (_asker("admin"), "auditor", TEAM, True),
        (_asker("admin", TEAM), "resource-writer", [*TEAM], True),
        (_asker("admin", TEAM), "resource-writer", ["/kbs/v0/resource/team/a"], True),
        (_asker("admin", TEAM), "resource-writer", [], True),
        (_asker("admin", TEAM), "resource-writer", None, False),
        (_asker("admin", TEAM), "resource-writer", ["/kbs/v0/resource"], False),
        (_asker("admin", TEAM), "resource-writer", ["/kbs/v0/resource/team2"], False),
        (_asker("admin", TEAM), "resource-writer", [*TEAM, "/kbs/v0/resource-policy"], False),
        (_asker("admin", []), "resource-writer", TEAM, False),
        (_asker("lead", roles=ISSUING), "policy-author", None, True),
        (_asker("lead", roles=ISSUING), "admin", None, False),
        (_asker("lead", roles=ISSUING), "resource-writer", None, False),
        (_asker("admin", roles=Roles(acls=[Acl("admin", "^/kbs/v0/.+$")])), "admin", None, False),
        (Admin("bob", "nobody", "", "", NOTHING), "auditor", None, False),
    ],
)
def test_nobody_hands_on_more_than_they_have(asker: Admin, role: str, scope: list[str] | None, allowed: bool) -> None:
    if allowed:
        assert MINT.mint_for(asker, "carol", role, scope=scope).role == role
    else:
        with pytest.raises(AdminForbidden):
            MINT.mint_for(asker, "carol", role, scope=scope)


def test_unknown_roles_are_nobody_s_to_hand_on() -> None:
    with pytest.raises(NameNotAllowed):
        MINT.mint_for(_asker("admin"), "carol", "nobody")


def test_a_token_does_not_outlive_the_one_it_is_made_with() -> None:
    hour = timedelta(hours=1)
    asker = replace(_asker("admin"), expires=NOW + hour)
    assert MINT.mint_for(asker, "carol", "auditor").expires == NOW + hour
    assert MINT.mint_for(asker, "carol", "auditor", hour).expires == NOW + hour
    with pytest.raises(AdminForbidden):
        MINT.mint_for(asker, "carol", "auditor", hour + timedelta(seconds=1))
