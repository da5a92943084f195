"""Documents made of YAML: one text for each, which says what was put in."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.errors import MalformedMessage
from kbs.initdata import toml_text
from kbs.initdata.render import render

VECTORS: Any = json.loads(Path("tests/vectors/initdata/initdata-vectors.json").read_text())
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
URL = "https://kbs.example:8080"


def files(**texts: str | bytes) -> Any:
    def read(name: str) -> bytes:
        try:
            text = texts[name]
        except KeyError:
            raise FileNotFoundError(2, "No such file", name) from None
        return text if isinstance(text, bytes) else text.encode()

    return read


def made(yaml: str, **texts: str | bytes) -> Any:
    return render(yaml.encode(), files(**texts))


@pytest.mark.parametrize("case", VECTORS["documents"], ids=lambda case: case["algorithm"])
def test_the_vectors_come_out_to_the_byte(case: Any) -> None:
    policy = tomllib.loads(case["toml"])["data"]["policy.rego"]
    yaml = f"""
kbs: {{url: "{URL}"}}
algorithm: {case["algorithm"]}
agent_policy: policy
labels: {{workload: payments-frontend}}
"""
    found = made(yaml, policy=policy)
    assert found.text == case["toml"]
    assert found.digest.hex() == case["digest_hex"]


def test_everything() -> None:
    yaml = f"""
kbs: {{url: "{URL}", ca: [one, two]}}
agent_policy: policy
image:
  policy: kbs:///default/security-policy/production
  credentials: kbs:///default/credential/production
  sigstore: kbs:///default/sigstore-config/production
  mirrors: {{docker.io: [mirror.example/library, other.example], quay.io: third.example}}
attestation_agent: {{log: {{level: debug}}, token_configs: {{coco_as: {{url: "http://as:8080"}}}}}}
confidential_data_hub:
  {{socket: "unix:///x", image: {{work_dir: /run/image}}, credentials: [{{path: /a, resource_uri: u}}]}}
labels: {{b: "2", a: "one\\ntwo", "ü": "'''"}}
"""
    found = made(yaml, one=PEM, two=PEM.replace("AAAA", "BBBB").replace("\n", "\r\n"), policy="package agent_policy\n")
    aa, cdh = tomllib.loads(found.data["aa.toml"]), tomllib.loads(found.data["cdh.toml"])
    both = PEM + PEM.replace("AAAA", "BBBB")
    assert aa == {
        "token_configs": {"kbs": {"url": URL, "cert": both}, "coco_as": {"url": "http://as:8080"}},
        "log": {"level": "debug"},
    }
    assert cdh["kbc"] == {"name": "cc_kbc", "url": URL, "kbs_cert": both}
    assert cdh["credentials"] == [{"path": "/a", "resource_uri": "u"}]
    assert cdh["image"]["image_security_policy_uri"] == "kbs:///default/security-policy/production"
    assert cdh["image"]["authenticated_registry_credentials_uri"] == "kbs:///default/credential/production"
    assert cdh["image"]["sigstore_config_uri"] == "kbs:///default/sigstore-config/production"
    assert cdh["image"]["work_dir"] == "/run/image"
    assert cdh["image"]["registry_config"]["registry"] == [
        {
            "prefix": "docker.io",
            "location": "docker.io",
            "mirror": [{"location": "mirror.example/library"}, {"location": "other.example"}],
        },
        {"prefix": "quay.io", "location": "quay.io", "mirror": [{"location": "third.example"}]},
    ]
    assert list(found.data) == ["aa.toml", "cdh.toml", "policy.rego", "a", "b", "ü"]
    assert (found.data["a"], found.data["b"], found.data["ü"]) == ("one\ntwo", "2", "'''")
    assert made(yaml, one=PEM, two=PEM.replace("AAAA", "BBBB"), policy="package agent_policy\n").raw == found.raw


def test_mirrors_by_resource() -> None:
    found = made(f'kbs: {{url: "{URL}"}}\nimage: {{registries: "kbs:///a/b/c"}}')
    assert tomllib.loads(found.data["cdh.toml"])["image"] == {"registry_configuration_uri": "kbs:///a/b/c"}


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "\n\n", "x", "x\n", "\nx", "x\ny", "'''", "x\n'''\n", "x\n''", "x\n'", '"""', 'x\n"""\n',
        "\\", "x\n\\\n", "x\\\ny",
        "a\r\nb", "a\rb\n", "\t\n\t", "\x01\n", "\x7f\n", "ü\n😀", "#\n", "a = 1\n[b]\n", "\u2028\n", "\ufeff\n",
    ],
)  # fmt: skip
def test_policies_of_any_text_come_back(text: str) -> None:
    if text.startswith("\ufeff"):
        text = "x" + text
    assert made(f'kbs: {{url: "{URL}"}}\nagent_policy: p', p=text).data["policy.rego"] == text


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_entries_come_back(text: str) -> None:
    assert tomllib.loads(toml_text.entry("a.b", text)) == {"a.b": text}


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-(1 << 62), 1 << 62), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_TEXTS, _VALUES, max_size=4))
def test_settings_come_back(members: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text.table(members)) == members


WRONG: dict[str, tuple[str, str]] = {
    "empty": ("", "one YAML document"),
    "two": ("a: 1\n---\nb: 1\n", "one YAML document"),
    "list": ("[1]", "the YAML is missing"),
    "unknown": (f'kbs: {{url: "{URL}"}}\npolicy: p', "unknown member 'policy'"),
    "no kbs": ("labels: {a: b}", "kbs is missing"),
    "no url": ("kbs: {ca: one}", "kbs.url"),
    "url a number": ("kbs: {url: 1}", "kbs.url"),
    "url of two lines": ('kbs: {url: "a\\nb"}', "kbs.url"),
    "unknown in kbs": (f'kbs: {{url: "{URL}", cert: one}}', "unknown member 'cert'"),
    "algorithm": (f'kbs: {{url: "{URL}"}}\nalgorithm: sm3', "algorithm"),
    "algorithm with a dash": (f'kbs: {{url: "{URL}"}}\nalgorithm: sha-256', "algorithm"),
    "algorithm a list": (f'kbs: {{url: "{URL}"}}\nalgorithm: [sha256]', "algorithm"),
    "ca a key": (f'kbs: {{url: "{URL}", ca: key}}', "private key"),
    "ca no certificate": (f'kbs: {{url: "{URL}", ca: policy}}', "no certificate"),
    "ca empty": (f'kbs: {{url: "{URL}", ca: []}}', "names no file"),
    "ca binary": (f'kbs: {{url: "{URL}", ca: binary}}', "not UTF-8"),
    "policy with nul": (f'kbs: {{url: "{URL}"}}\nagent_policy: nul', "NUL"),
    "policy with a mark": (f'kbs: {{url: "{URL}"}}\nagent_policy: mark', "byte order mark"),
    "policy a mapping": (f'kbs: {{url: "{URL}"}}\nagent_policy: {{a: b}}', "agent_policy"),
    "image unknown": (f'kbs: {{url: "{URL}"}}\nimage: {{uri: x}}', "unknown member 'uri'"),
    "image both": (f'kbs: {{url: "{URL}"}}\nimage: {{registries: x, mirrors: {{a: b}}}}', "write one of them"),
    "mirrors none": (f'kbs: {{url: "{URL}"}}\nimage: {{mirrors: {{}}}}', "names no registry"),
    "mirrors a list": (f'kbs: {{url: "{URL}"}}\nimage: {{mirrors: [a]}}', "image.mirrors"),
    "mirror a number": (f'kbs: {{url: "{URL}"}}\nimage: {{mirrors: {{a: [1]}}}}', "image.mirrors.a"),
    "url twice": (
        f'kbs: {{url: "{URL}"}}\nattestation_agent: {{token_configs: {{kbs: {{url: x}}}}}}',
        "stands already",
    ),
    "null": (f'kbs: {{url: "{URL}"}}\nattestation_agent: {{a: null}}', "null"),
    "a date": (f'kbs: {{url: "{URL}"}}\nattestation_agent: {{a: 2026-01-01}}', "does not have"),
    "deep": (f'kbs: {{url: "{URL}"}}\nattestation_agent: {"{a: " * 20}1{"}" * 20}', "too deeply"),
    "deep list": (f'kbs: {{url: "{URL}"}}\nattestation_agent: {{a: {"[" * 20}{"]" * 20}}}', "too deeply"),
    "label a number": (f'kbs: {{url: "{URL}"}}\nlabels: {{a: 1}}', "quotes"),
    "label of an entry": (f'kbs: {{url: "{URL}"}}\nlabels: {{aa.toml: x}}', "not a name"),
    "label of a claim": (f'kbs: {{url: "{URL}"}}\nlabels: {{agent_policy_rules_sha256: x}}', "not a name"),
    "label empty": (f'kbs: {{url: "{URL}"}}\nlabels: {{"": x}}', "not a name"),
    "labels a list": (f'kbs: {{url: "{URL}"}}\nlabels: [a]', "labels"),
    "too much": (f'kbs: {{url: "{URL}"}}\nagent_policy: large', "more than"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_rendered(name: str) -> None:
    yaml, said = WRONG[name]
    with pytest.raises(MalformedMessage, match=said):
        made(
            yaml,
            key=PEM + "-----BEGIN PRIVATE KEY-----\n",
            policy="x",
            binary=b"\xff",
            nul="a\0",
            mark="\ufeffx",
            large="#" * (600 << 10),
        )


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        made(f'kbs: {{url: "{URL}", ca: none}}')
