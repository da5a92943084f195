"""What is found in documents: one case for each finding, and none in a good one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kbs.initdata import agent_policy, annotation, document, toml_text
from kbs.initdata.check import check
from kbs.initdata.document import Document
from kbs.initdata.findings import FINDINGS, Finding, Severity

VECTORS: Any = json.loads(Path("tests/vectors/initdata/initdata-vectors.json").read_text())
NEGATIVE = {case["name"]: case for case in VECTORS["negative"]}
AT = datetime(2026, 6, 15, tzinfo=UTC)
URL = "https://kbs.example:8080"
POLICY = """package agent_policy

default CreateContainerRequest := false
default SetPolicyRequest := false

policy_data := {"containers": []}
"""


@cache
def certificate(*, ca: bool = True, own: bool = True, server: bool = False, age: int = 10) -> str:
    """A PEM; own: self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kbs")])
    issuer = name if own else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(AT - timedelta(days=age))
        .not_valid_after(AT + timedelta(days=100 - age))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if server:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("kbs.example")]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


HEAD = 'version = "0.1.0"\nalgorithm = "sha256"\n'


def made(aa: Any = None, cdh: Any = None, policy: str | None = POLICY, head: str = HEAD, **labels: str) -> Document:
    """A good document, but for what is given. Entries: settings, text, or False for none."""
    aa = {"token_configs": {"kbs": {"url": URL}}} if aa is None else aa
    cdh = {"kbc": {"name": "cc_kbc", "url": URL}} if cdh is None else cdh
    entries = {
        name: toml_text.table(each) if isinstance(each, dict) else each
        for name, each in (("aa.toml", aa), ("cdh.toml", cdh))
        if each is not False
    }
    if policy is not None:
        entries["policy.rego"] = policy
    text = head + "\n[data]\n" + "".join(toml_text.entry(name, each) for name, each in (entries | labels).items())
    return document.parse(text.encode())


def names(found: Sequence[Finding], *, notes: bool = False) -> set[str]:
    return {each.name for each in found if notes or each.severity is not Severity.NOTE}


def with_ca(pem: Any, other: Any = "same", cdh_url: str = URL) -> Document:
    aa: dict[str, Any] = {"token_configs": {"kbs": {"url": URL, "cert": pem}}}
    cdh: dict[str, Any] = {"kbc": {"name": "cc_kbc", "url": cdh_url}}
    if other is not None:
        cdh["kbc"]["kbs_cert"] = pem if other == "same" else other
    return made(aa, cdh)


def with_url(url: str) -> Document:
    return made({"token_configs": {"kbs": {"url": url}}}, {"kbc": {"url": url}})


def with_uri(uri: str) -> Document:
    return made(cdh={"kbc": {"url": URL}, "image": {"image_security_policy_uri": uri}})


def with_policy(*lines: str, data: str = 'policy_data := {"containers": []}') -> Document:
    return made(policy="\n".join(("package agent_policy", "default SetPolicyRequest := false", *lines, data)) + "\n")


def head(version: str = "0.1.0", algorithm: str = "sha256", more: str = "") -> Document:
    return made(head=f'version = "{version}"\nalgorithm = "{algorithm}"\n{more}')


def large(size: int) -> Document:
    return made(padding=os.urandom(size).hex())


@cache
def cases() -> dict[str, tuple[Document, set[str]]]:
    """By what is wrong: the document, and everything that is found beside notes."""
    return {
        "good": (made(), set()),
        "good with a CA": (with_ca(certificate()), set()),
        "good with a URI": (with_uri("kbs:///default/security-policy/test"), set()),
        "good with plugins": (with_uri("kbs+pkcs11:///a/b/c/d"), set()),
        "version": (head(version="0.1.1"), {"version-not-started"}),
        "sha384": (head(algorithm="sha384"), {"algorithm-cut", "algorithm-refused"}),
        "sha512": (head(algorithm="sha512"), {"algorithm-cut", "algorithm-refused"}),
        "sm3": (head(algorithm="sm3"), {"algorithm-unknown"}),
        "members": (head(more="owner = 1\n"), {"member-ignored"}),
        "CR LF": (document.parse(made().raw.replace(b"\n", b"\r\n")), {"carriage-returns"}),
        "a key": (made(key="-----BEGIN EC PRIVATE KEY-----\nx\n"), {"private-key"}),
        "large": (large(150 << 10), {"annotation-large"}),
        "too large": (large(250_000), {"annotation-too-large"}),
        "no aa": (made(aa=False), {"aa-missing"}),
        "no cdh": (made(cdh=False), {"cdh-missing"}),
        "aa is no TOML": (made(aa="x"), {"aa-unreadable"}),
        "cdh is no TOML": (made(cdh="x = 1\nx = 2\n"), {"cdh-unreadable"}),
        "misspelt": (made(**{"aa_toml": "x", "Policy.rego": "x", "image.toml": "x"}), {"entry-misspelt"}),
        "reserved": (made(agent_policy_claims="x"), {"name-reserved"}),
        "no url": (made(aa={"log": {"level": "info"}}), {"kbs-url-missing"}),
        "http": (with_url("http://kbs:8080"), {"kbs-url-http"}),
        "no scheme": (with_url("kbs:8080"), {"kbs-url-malformed"}),
        "no slashes": (with_url("http:kbs"), {"kbs-url-malformed"}),
        "a bad port": (with_url("https://kbs:99999"), {"kbs-url-malformed"}),
        "url a number": (made({"token_configs": {"kbs": {"url": 1}}}, {"kbc": {"url": 1}}), {"kbs-url-malformed"}),
        "urls": (made(cdh={"kbc": {"url": URL + "/"}}), {"kbs-url-differs"}),
        "one CA": (with_ca(certificate(), None), {"ca-differs"}),
        "two CAs": (with_ca(certificate(), certificate(age=11)), {"ca-differs"}),
        "CA no PEM": (with_ca("x"), {"ca-malformed"}),
        "CA a number": (with_ca(1), {"ca-malformed"}),
        "CA damaged": (with_ca(certificate().replace("M", "N")), {"ca-malformed"}),
        "CA expired": (with_ca(certificate(age=200)), {"ca-expired"}),
        "CA of tomorrow": (with_ca(certificate(age=-1)), {"ca-not-yet-valid"}),
        "leaf": (with_ca(certificate(ca=False, own=False, server=True)), {"ca-is-leaf"}),
        "self-signed leaf": (with_ca(certificate(ca=False, server=True)), {"ca-self-signed-leaf"}),
        "CA as leaf": (with_ca(certificate(server=True)), {"ca-used-as-server"}),
        "second of two": (with_ca(certificate() + certificate(ca=False, own=False)), {"ca-is-leaf"}),
        "two slashes": (with_uri("kbs://default/key/1"), {"resource-uri-host"}),
        "two slashes, a plugin": (with_uri("kbs+resource://default/key/1"), {"resource-uri-host"}),
        "two parts": (with_uri("kbs:///default/key"), {"resource-uri"}),
        "dots": (with_uri("kbs:///default/../key"), {"resource-uri"}),
        "no policy": (made(policy=None), {"policy-missing"}),
        "no package": (made(policy="default SetPolicyRequest := false\n"), {"policy-package"}),
        "another package": (made(policy="package policy\ndefault SetPolicyRequest := false\n"), {"policy-package"}),
        "undeclared": (made(policy="package agent_policy\n"), {"set-policy-undeclared"}),
        "undeclared but in a comment": (
            made(policy="package agent_policy\n# SetPolicyRequest\n"),
            {"set-policy-undeclared"},
        ),
        "set policy": (
            made(policy="package agent_policy\ndefault SetPolicyRequest := true\n"), {"set-policy-allowed"}
        ),
        "exec": (with_policy("default ExecProcessRequest := true"), {"exec-allowed"}),
        "exec, old": (with_policy("default ExecProcessRequest = true"), {"exec-allowed"}),
        "exec by a rule": (with_policy("ExecProcessRequest if true"), {"exec-allowed"}),
        "exec by a body": (with_policy("ExecProcessRequest {", "  true", "}"), {"exec-allowed"}),
        "exec by both": (with_policy("ExecProcessRequest := true if { true }"), {"exec-allowed"}),
        "exec by a value": (with_policy("ExecProcessRequest := true"), {"exec-allowed"}),
        "copy": (with_policy("default CopyFileRequest := true"), {"copy-file-allowed"}),
        "create": (with_policy("CreateContainerRequest := true"), {"create-allowed"}),
        "failing": (with_policy("default AllowRequestsFailingPolicy := true"), {"failing-policy-allowed"}),
        "all": (
            made(policy="package agent_policy\n" + "".join(
                f"default {name} := true\n"
                for name in ("CreateContainerRequest", "ExecProcessRequest", "SetPolicyRequest")
            )),
            {"policy-allows-all", "create-allowed", "exec-allowed", "set-policy-allowed"},
        ),
        "conditions": (with_policy("ExecProcessRequest if { input.x == true }"), set()),
        "a comment": (with_policy("# default ExecProcessRequest := true"), set()),
        "a string": (with_policy('x := "', data='"\npolicy_data := {"containers": []}'), set()),
        "a comment sign in a string": (
            with_policy('x := "#"; y := 1', "default ExecProcessRequest := true"), {"exec-allowed"}
        ),
        "vector: commented": (
            made(policy=NEGATIVE["commented-policy-data"]["policy_rego"]),
            {"policy-data-commented", "create-allowed", "set-policy-allowed"},
        ),
        "data in a string": (with_policy("x := `", data='policy_data := {"containers": []}'), set()),
        "vector: not last": (
            made(policy=NEGATIVE["policy-data-not-last"]["policy_rego"]),
            {"policy-data-not-last", "set-policy-undeclared"},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", cases())
def test_what_is_found(name: str) -> None:
    read, wanted = cases()[name]
    found = check(read, AT)
    assert names(found) == wanted
    assert [each.severity for each in found] == sorted((each.severity for each in found), key=list(Severity).index)
    assert all(each.text and each.text.isprintable() and len(each.text) < 400 for each in found)


def test_every_finding_has_a_case_and_a_hint() -> None:
    found = {name for _, wanted in cases().values() for name in wanted} | {"label"}
    assert found == set(FINDINGS)
    for name, (severity, hint) in FINDINGS.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert severity in Severity
        assert hint


def test_labels_are_noted() -> None:
    found = check(made(workload="payments", **{"service-account": "payments/api"}), AT)
    assert [(each.name, each.where) for each in found] == [("label", "service-account"), ("label", "workload")]


def test_the_size_is_that_of_all_annotations() -> None:
    value = annotation.encode(made().raw)
    others = {f"a{number}": "x" * 50_000 for number in range(6)}
    raw = json.dumps({"kind": "Pod", "metadata": {"annotations": {annotation.KEY: value, **others}}}).encode()
    assert "annotation-too-large" in names(check(document.read(raw), AT))


def test_what_strangers_wrote_is_shown_cut_and_printable() -> None:
    (found,) = check(with_url("\x1b[2J" + "x" * 5000), AT)[:1]
    assert found.text.isprintable()
    assert len(found.text) < 200


def test_a_string_that_never_ends_hides_no_more_than_rego_would() -> None:
    """A raw string that is open to the end is no Rego; what brokers find in it is found in a string."""
    seen = agent_policy.look_at('package agent_policy\nx := `a`\ny := `b\npolicy_data := {"containers": []}\n')
    assert seen.data
    assert not seen.misplaced_data
    again = agent_policy.look_at('package agent_policy\nx := "policy_data := {}"\n')
    assert again.misplaced_data
