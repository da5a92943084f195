"""The six steps."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tests.demo.differences import APPROVED, Difference
from tests.demo.processes import DATA, Shell

_ROOT: Final = Path(__file__).parents[2]
_SECRET_PATH: Final = "default/key/1"
_LOCAL: Final = ("--data", DATA)
_REPORTS: Final = (
    ("milan_v3", "Milan, report version 3", "2026-06-15T12:00:00Z"),
    ("e2e_genoa_v3", "Genoa, report version 3", "2026-06-15T12:00:00Z"),
    ("turin_v5", "Turin, report version 5", "2026-07-15T12:00:00Z"),
)
_VECTOR: Final = ("executables", "hardware", "configuration")


def tell(shell: Shell, difference: Difference) -> None:
    """Run all of it.

    Raises:
        DemoFailed: something did not come out as it says here.
    """
    terminal = shell.terminal
    terminal.step(
        "A broker from nothing",
        "Keys, TLS and an admin token; then the broker itself, on a free port of this machine.",
    )
    shell.kbs("init", DATA, "--insecure-sample")
    terminal.shell(f"export KBS__SERVER__LISTEN='[\"127.0.0.1:{shell.port}\"]'")
    with shell.serving():
        terminal.check(f"the broker answers on {shell.url}, over TLS", good=True)
        secret = _rules(shell)
        _granted(shell, secret)
        _refused(shell, difference)
        _hardware(shell)
        _audit(shell)


def _rules(shell: Shell) -> str:
    terminal = shell.terminal
    terminal.step(
        "A secret, and who may have it",
        "The secret goes in through stdin. Reference values say what a good guest looks like, the policy says what",
        "a guest must have been found to be. This policy admits software guests: for demonstrations only.",
    )
    secret = f"the launch code is {secrets.token_hex(8)}"
    shell.kbs("resource", "set", _SECRET_PATH, "--file", "-", *_LOCAL, stdin=secret)
    for name, value in APPROVED.items():
        shell.kbs("reference", "set", name, json.dumps(value), *_LOCAL)
    shell.kbs("policy", "set-resource", "--shipped", "sample-demo", *_LOCAL)
    terminal.check("rules and secret are in force at once, without a restart", good=True)
    return secret


def _granted(shell: Shell, secret: str) -> None:
    terminal = shell.terminal
    terminal.step(
        "A guest gets the secret",
        "It asks for a challenge, binds its fresh key to the evidence, attests, and opens the answer with that key.",
    )
    value = shell.kbs("guest", "get", _SECRET_PATH, *_as_guest(shell))
    terminal.check("decrypted in the guest, byte for byte what was put in", value == secret)


def _refused(shell: Shell, difference: Difference) -> None:
    terminal = shell.terminal
    terminal.step(
        "A guest that differs in one place does not",
        f"In this run: {difference.option}, picked at random. Everything else is as before.",
    )
    told = shell.kbs("guest", "get", _SECRET_PATH, "--claim", difference.option, *_as_guest(shell), code=1)
    decision = re.search(r"403 PolicyDeny: .* \(decision ([0-9a-f]{32})\)", told)
    terminal.check("refused: 403, and the id of the decision", decision is not None)
    assert decision is not None
    hidden = [difference.claim, *map(str, APPROVED["launch_digest"])]
    terminal.check("the guest is not told what was expected", not any(text in told for text in hidden))
    terminal.say("The operator asks why:")
    shell.kbs("explain", decision[1], *_LOCAL)
    found = shell.ask("explain", decision[1], *_LOCAL)
    terminal.check_all(_explained(found, difference, shell.ask("status", *_LOCAL)["references"]))


def _explained(found: Mapping[str, Any], difference: Difference, references: str) -> Iterator[tuple[str, bool]]:
    causes = [cause for cause in found["causes"] if cause["where"] == "cpu0"]
    yield f"it names exactly one claim, {difference.claim}", [each["claim"] for each in causes] == [difference.claim]
    (cause,) = causes
    seen, expected = json.dumps(difference.seen), json.dumps(difference.expected)
    found_json = (json.dumps(cause["seen"]), json.dumps(cause["expected"]))  # as JSON, where false is not 0
    yield f"seen {seen}, expected {expected}", found_json == (seen, expected)
    rule = f"the rule, {difference.rule}" + (f", and the value, {difference.reference}" if difference.reference else "")
    yield rule, (cause["rule"], cause["reference"]) == (difference.rule, difference.reference)
    rules = found["rules"]
    versions = (
        rules["resource policy"].endswith(f"sha256:{_digest('resource/sample-demo')}"),
        rules["evidence policy of cpu0"].endswith(f"sha256:{_digest('evidence/cpu')}"),
        rules["reference values"] == references,
    )
    yield "the versions of both policies and of the values", versions == (True, True, True)


def _hardware(shell: Shell) -> None:
    terminal = shell.terminal
    terminal.step(
        "Evidence of real hardware, up to the vendor's real roots",
        "Reports recorded on AMD SEV-SNP machines, verified offline at a time when their certificates were valid.",
    )
    for name, label, at in _REPORTS:
        evidence = _copied(shell, name)
        terminal.say(f"{label}:")
        words = ("appraise", "--tee", "snp", "--evidence", evidence, "--at", at)
        found = json.loads(shell.kbs(*words, "--json", quiet=True))
        terminal.facts(_facts(found))
        terminal.check("authentic; not affirmed, since nobody vouched for any value yet", _is_authentic(found, False))
    _affirmed(shell)
    terminal.say(f"{_REPORTS[0][1]}, with one byte of the measurement changed:")
    altered = _altered(shell, _REPORTS[0][0])
    words = ("appraise", "--tee", "snp", "--evidence", altered, "--at", _REPORTS[0][2])
    shell.kbs(*words, code=1)
    terminal.check("refused: the signature does not hold", shell.ask(*words, code=1)["class"] == "SignatureInvalid")


def _affirmed(shell: Shell) -> None:
    """The last report once more, as a handshake would see it on a machine that an operator approved."""
    terminal = shell.terminal
    name, label, at = _REPORTS[-1]
    terminal.say(f"{label}, approved by reference values and bound to its report data. There is no revocation list")
    terminal.say("offline: that is waived by name here, and stays visible in the claims.")
    claims = _claims(shell.ask("appraise", "--tee", "snp", "--evidence", f"{name}.evidence.json", "--at", at))
    values = {
        "snp_launch_measurement": [claims["measurement"]],
        "snp_bootloader": [claims["reported_tcb_bootloader"]],
        "snp_microcode": [claims["reported_tcb_microcode"]],
        "snp_snp_svn": [claims["reported_tcb_snp"]],
        "snp_tee_svn": [claims["reported_tcb_tee"]],
    }
    (shell.directory / "approved.json").write_text(json.dumps(values))
    words = (
        *("appraise", "--tee", "snp", "--evidence", f"{name}.evidence.json", "--at", at),
        *("--reference-values", "approved.json", "--report-data", claims["report_data"]),
        *("--option", 'allow_unchecked_revocation=["snp"]'),
    )
    found = json.loads(shell.kbs(*words, "--json", quiet=True))
    terminal.facts(_facts(found))
    waived = _claims(found)["revocation_waived"] is True and _claims(found)["revocation"] == "not_checked"
    terminal.check(
        "authentic and affirming, and the waiver stands in the claims", _is_authentic(found, True) and waived
    )


def _audit(shell: Shell) -> None:
    terminal = shell.terminal
    terminal.step(
        "Proof that the record of all this is whole",
        "Every decision was written down before its answer left: chained, and signed for outside the log.",
    )
    shell.kbs("audit", "tail", *_LOCAL, "-n", "4")
    shell.kbs("audit", "verify", *_LOCAL)
    terminal.check("no record was changed, moved or cut off", shell.ask("audit", "verify", *_LOCAL)["ok"] is True)
    terminal.say("A copy without its last record:")
    terminal.shell(f"head -n -1 {DATA}/audit/log.jsonl > cut.jsonl")
    lines = (shell.directory / DATA / "audit/log.jsonl").read_bytes().splitlines(keepends=True)
    (shell.directory / "cut.jsonl").write_bytes(b"".join(lines[:-1]))
    words = ("audit", "verify", *_LOCAL, "--log", "cut.jsonl")
    shell.kbs(*words, code=1)
    problems = [problem["code"] for problem in shell.ask(*words, code=1)["problems"]]
    terminal.check("found out: the end is missing", problems == ["cut"])


def _as_guest(shell: Shell) -> tuple[str, ...]:
    """A guest has an address and a CA, and nothing else of the broker's."""
    return ("--url", shell.url, "--ca-file", f"{DATA}/tls/ca.pem")


def _digest(policy: str) -> str:
    return sha256((_ROOT / "policies" / f"{policy}.rego").read_bytes()).hexdigest()[:16]


def _copied(shell: Shell, name: str) -> str:
    file = f"{name}.evidence.json"
    (shell.directory / file).write_bytes((_ROOT / "tests/vectors/snp" / file).read_bytes())
    return file


def _altered(shell: Shell, name: str) -> str:
    evidence = json.loads((shell.directory / f"{name}.evidence.json").read_text())
    evidence["attestation_report"]["measurement"][0] ^= 1
    (shell.directory / "altered.json").write_text(json.dumps(evidence))
    return "altered.json"


def _claims(found: Mapping[str, Any]) -> Mapping[str, Any]:
    claims: Mapping[str, Any] = found["submods"]["cpu0"]["claims"]
    return claims


def _is_authentic(found: Mapping[str, Any], affirming: bool) -> bool:
    status = found["submods"]["cpu0"]["status"]
    return found["authentic"] is True and (status == "affirming") is affirming and _ear_status(found) == status


def _ear_status(found: Mapping[str, Any]) -> str:
    status: str = found["ear"]["submods"]["cpu0"]["ear.status"]
    return status


def _facts(found: Mapping[str, Any]) -> dict[str, object]:
    submod, claims = found["submods"]["cpu0"], _claims(found)
    tcb = ", ".join(f"{part} {claims[f'reported_tcb_{part}']}" for part in ("bootloader", "snp", "microcode"))
    return {
        "chain": f"{claims['vek'].upper()} of chip {claims['chip_id'][:16]}…, up to AMD's root for {claims['product']}",
        "claims": f"{len(claims)}, such as measurement {claims['measurement'][:16]}…, TCB {tcb}, "
        f"debugging {'allowed' if claims['policy_debug_allowed'] else 'off'}",
        "vector": ", ".join(f"{name} {submod['trust_vector'][name]}" for name in _VECTOR),
        "EAR": f"{_ear_status(found)}, for {found['ear']['eat_profile']}",
    }
