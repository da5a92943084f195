"""Init data: vectors, digests over exact octets, and documents that nobody's guest sends."""

from __future__ import annotations

import hashlib
import json
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.init_data import DATA_CLAIM, MAX_DOCUMENT, RULES_CLAIM, parse_init_data
from kbs.errors import MalformedMessage

HEAD = 'version = "0.1.0"\nalgorithm = "sha256"\n'


def _document(**data: str) -> str:
    return (
        HEAD
        + "[data]\n"
        + "".join(f"{json.dumps(name)} = {json.dumps(text, ensure_ascii=False)}\n" for name, text in data.items())
    )


def _entries(**data: str) -> Any:
    return parse_init_data(_document(**{name.replace("_", "."): text for name, text in data.items()})).claims


def _load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_vectors_of_whole_documents(vectors: Path) -> None:
    wanted = _load(vectors / "initdata" / "initdata-vectors.json")
    assert len(wanted["documents"]) == 3
    for document in wanted["documents"]:
        found = parse_init_data(document["toml"], "toml")
        assert found.algorithm == document["algorithm"]
        assert found.digest.hex() == document["digest_hex"]
        rules = tomllib.loads(document["toml"])["data"]["policy.rego"].partition("policy_data := {")[0]
        ours = {RULES_CLAIM: hashlib.sha256(rules.encode()).hexdigest()}
        assert found.claims == wanted["init_data_claims"] | ours


def test_vectors_of_the_attestation_service(vectors: Path) -> None:
    cases = _load(vectors / "as" / "appraisal.json")["init_data"]
    assert len(cases) == 3
    for case in cases:
        found = parse_init_data(case["toml"])
        assert (found.algorithm, found.digest.hex()) == (case["algorithm"], case["digest_hex"])
        assert {name: claim for name, claim in found.claims.items() if name != RULES_CLAIM} == case["init_data_claims"]
        assert (RULES_CLAIM in found.claims) == (DATA_CLAIM in found.claims)


def test_one_more_newline_is_another_digest(vectors: Path) -> None:
    wanted = _load(vectors / "initdata" / "initdata-vectors.json")
    negative = {case["name"]: case for case in wanted["negative"]}
    text = wanted["documents"][0]["toml"]
    assert parse_init_data(text + "\n").digest.hex() == negative["one-extra-newline"]["digest_sha256_hex"]
    assert (
        parse_init_data(text.replace("\n", "\r\n")).digest
        == hashlib.sha256(text.replace("\n", "\r\n").encode()).digest()
    )


def test_policy_data_is_found_by_its_text_alone(vectors: Path) -> None:
    negative = {case["name"]: case for case in _load(vectors / "initdata" / "initdata-vectors.json")["negative"]}
    commented = _entries(policy_rego=negative["commented-policy-data"]["policy_rego"])
    rules = negative["commented-policy-data"]["policy_rego"].partition("policy_data := {")[0]
    assert rules.endswith("\n# ")
    assert commented == {DATA_CLAIM: {"containers": []}, RULES_CLAIM: hashlib.sha256(rules.encode()).hexdigest()}
    text = negative["policy-data-not-last"]["policy_rego"]
    assert _entries(policy_rego=text) == {"policy.rego": text}


def test_the_rules_are_all_of_the_text_before_the_data() -> None:
    """So that a comment sign, or one more rule, is another digest; the data, and what they are, make no difference."""
    rules = "package agent_policy\ndefault CreateContainerRequest := false\n"

    def digest_of(text: str) -> Any:
        return _entries(policy_rego=text)[RULES_CLAIM]

    assert digest_of(rules + "policy_data := {}") == hashlib.sha256(rules.encode()).hexdigest()
    assert digest_of(rules + 'policy_data := {"containers": [1]}\n') == digest_of(rules + "policy_data := {}")
    for other in (rules + "# ", rules + "SetPolicyRequest := true\n", rules.replace("false", "true"), ""):
        assert digest_of(other + "policy_data := {}") != digest_of(rules + "policy_data := {}")


@pytest.mark.parametrize("name", [DATA_CLAIM, RULES_CLAIM])
def test_no_entry_passes_for_what_is_derived(name: str) -> None:
    """The author of a document would otherwise say with a label that approved rules enforce its data."""
    assert parse_init_data(_document(**{name: "ab" * 32})).claims == {}
    derived = parse_init_data(_document(**{name: "ab" * 32, "policy.rego": "policy_data := {}"})).claims
    assert derived == {DATA_CLAIM: {}, RULES_CLAIM: hashlib.sha256(b"").hexdigest()}
    assert parse_init_data(_document(**{name: "x", "policy.rego": "allow := true"})).claims == {
        "policy.rego": "allow := true"
    }


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("sha256", lambda octets: hashlib.sha256(octets).digest()),
        ("sha384", lambda octets: hashlib.sha384(octets).digest()),
        ("sha512", lambda octets: hashlib.sha512(octets).digest()),
    ],
)
def test_digests(algorithm: str, digest: Any) -> None:
    text = f'version = "0.1.0"\nalgorithm = "{algorithm}"\n[data]\nnote = "größer"\n'
    assert parse_init_data(text).digest == digest(text.encode())


def test_sm3() -> None:
    """Expected value computed with `openssl dgst -sm3`."""
    text = 'version = "0.1.0"\nalgorithm = "sm3"\n[data]\n'
    found = parse_init_data(text)
    assert found.digest.hex() == "aaacb27e860773d9d39e6520f1af87af3efb68db788df61d8f88f6e1ef5f704f"
    assert len(found.digest) == 32


@pytest.mark.parametrize("name", ["sha-256", "SHA256", "sha1", "md5", "", "sha3_256", "blake2b"])
def test_other_digests_are_refused(name: str) -> None:
    with pytest.raises(MalformedMessage, match="algorithm"):
        parse_init_data(f'version = "0.1.0"\nalgorithm = "{name}"\n[data]\n')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not toml",
        'algorithm = "sha256"\n[data]\n',
        'version = "0.1.0"\n[data]\n',
        HEAD,
        'version = 1\nalgorithm = "sha256"\n[data]\n',
        'version = "0.1.0"\nalgorithm = ["sha256"]\n[data]\n',
        HEAD + "data = 3\n",
        HEAD + "[[data]]\n",
        HEAD + "[data]\nnumber = 1\n",
        HEAD + '[data]\n[data."aa.toml"]\nx = 1\n',
        HEAD + '[data]\nx = "1"\nx = "2"\n',
        HEAD + HEAD + "[data]\n",
        HEAD + '[data]\nx = "\ud800"\n',
        "a = " + "[" * 100_000,
        "a = " + "{a = " * 100_000,
        "a = " + "9" * 100_000,
    ],
)
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_init_data(text)


@pytest.mark.parametrize("name", ["", "json", "TOML", "toml "])
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(MalformedMessage, match="toml"):
        parse_init_data(_document(), name)


def test_size_is_counted_in_octets() -> None:
    def filled(length: int, letter: str) -> str:
        return HEAD + "[data]\n# " + letter * length

    fits = MAX_DOCUMENT - len(filled(0, ""))
    assert parse_init_data(filled(fits, "x")).claims == {}
    with pytest.raises(MalformedMessage, match="too long"):
        parse_init_data(filled(fits + 1, "x"))
    with pytest.raises(MalformedMessage, match="too long"):
        parse_init_data(filled(fits // 2 + 1, "ö"))


@pytest.mark.parametrize("part", ["a", '"a"', "'a'", '"\\""', "a \t"])
def test_a_deep_key_costs_nothing(part: str) -> None:
    """The parser alone would take minutes for these."""
    key = ".".join([part] * 20_000)
    started = time.process_time()
    with pytest.raises(MalformedMessage):
        parse_init_data(HEAD + f"{key} = 1\n[data]\n")
    hidden = "\\u0061" + "\\u002ea" * 20_000 + " = 1\\n"
    assert isinstance(parse_init_data(HEAD + f'[data]\n"aa.toml" = "{hidden}"\n').claims["aa.toml"], str)
    assert time.process_time() - started < 1


def test_many_keys_of_the_longest_kind_are_parsed_in_time() -> None:
    """A whole document of them, below a table with as long a name: 3.7 s when keys might have 100 parts."""
    longest = "[" + ".".join("a" * 32) + "]\n"
    keys = "".join("b." * 31 + f"b{number} = 1\n" for number in range(MAX_DOCUMENT // 72))
    started = time.process_time()
    assert parse_init_data(f"{HEAD}[data]\n{longest}{keys}").claims == {}
    assert time.process_time() - started < 3
    with pytest.raises(MalformedMessage, match="TOML"):
        parse_init_data(f"{HEAD}[data]\n[{'.'.join('a' * 33)}]\n")


def test_unknown_members_are_measured_and_ignored() -> None:
    text = 'future = 1\nversion = "9"\nalgorithm = "sha256"\n[data]\n[more]\n'
    assert parse_init_data(text).claims == {}
    assert parse_init_data(text).digest == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize(
    "text",
    [
        "this is not = = toml",
        "when = 2026-06-15T12:00:00Z",
        "when = 12:00:00",
        "n = nan",
        "n = [1.0, -inf]",
        f"n = {1 << 63}",
        f"n = {-(1 << 63) - 1}",
        "n = " + "[" * 60 + "]" * 60,
        "n = " + "[" * 5000,
    ],
)
@pytest.mark.parametrize("name", ["aa_toml", "cdh_toml"])
def test_toml_without_a_json_form_stays_text(name: str, text: str) -> None:
    assert _entries(**{name: text}) == {name.replace("_", "."): text}


def test_toml_keeps_its_types() -> None:
    text = f'b = true\ni = {(1 << 63) - 1}\nf = 1.5\ns = "x"\nl = [{{k = -{1 << 63}}}]\n'
    wanted = {"b": True, "i": (1 << 63) - 1, "f": 1.5, "s": "x", "l": [{"k": -(1 << 63)}]}
    assert _entries(aa_toml=text) == {"aa.toml": wanted}
    assert _entries(other_toml=text) == {"other.toml": text}


@pytest.mark.parametrize(
    "tail",
    [
        '{"a": 1} x',
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        "{}\n{}",
        "{",
        '{"a": ' + "[" * 60 + "]" * 60 + "}",
        f'{{"a": {1 << 63}}}',
        "{a: 1}",
    ],
)
def test_policy_data_that_readers_would_read_differently_stays_text(tail: str) -> None:
    text = f"package agent_policy\npolicy_data := {tail}"
    assert _entries(policy_rego=text) == {"policy.rego": text}


@pytest.mark.parametrize("space", ["", "\n", " \t\r\n\n"])
def test_policy_data_may_end_in_white_space(space: str) -> None:
    claims = _entries(policy_rego=f'policy_data := {{"a": [1, null]}}{space}')
    assert claims[DATA_CLAIM] == {"a": [1, None]}


def test_the_first_policy_data_counts() -> None:
    text = 'policy_data := {"a": 1}\npolicy_data := {"a": 2}'
    assert _entries(policy_rego=text) == {"policy.rego": text}


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    for body in (text, HEAD + "[data]\n" + text):
        try:
            found = parse_init_data(body)
        except MalformedMessage:
            continue
        assert found.digest == hashlib.sha256(body.encode()).digest()


@given(st.dictionaries(st.sampled_from(["aa.toml", "cdh.toml", "policy.rego", "x"]), st.text(max_size=80)))
def test_any_entry_gives_claims(data: dict[str, str]) -> None:
    encodable = {name: text for name, text in data.items() if text.isprintable()}
    claims = parse_init_data(_document(**encodable)).claims
    json.dumps(claims, allow_nan=False)
    assert set(claims) - {DATA_CLAIM, RULES_CLAIM} <= set(encodable)
