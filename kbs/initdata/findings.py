"""Findings about documents: every one has a name that scripts may rely on, and the name decides how bad it is.

`error`: guests will not start, will not get anything, or are wide open. `warning`: works for some and not for others,
or allows more than most want. `note`: worth knowing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """Worst first."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

FINDINGS: Final[Mapping[str, tuple[Severity, str]]] = {
    "aa-missing": (_W, "add the entry aa.toml; without it the guest takes its KBS from the kernel command line"),
    "aa-unreadable": (_E, "mend the TOML in aa.toml: the attestation agent will not start"),
    "algorithm-cut": (
        _W,
        "use algorithm sha256: SNP keeps the first 32 bytes of a longer digest",
    ),
    "algorithm-refused": (_W, "use algorithm sha256: PCR 8 of vTPMs takes no other"),
    "algorithm-unknown": (_E, "use algorithm sha256: Kata starts sha256, sha384 and sha512"),
    "annotation-large": (_W, "all annotations of an object together have 256 KiB; little is left for others"),
    "annotation-too-large": (_E, "Kubernetes refuses it: make the document smaller, by a policy for fewer containers"),
    "ca-differs": (_E, "give aa.toml and cdh.toml the same certificate, or one of them will not connect"),
    "ca-expired": (_E, "renew the CA and render again"),
    "ca-is-leaf": (_E, "name the CA that signed the server's certificate; OpenSSL trusts no leaf"),
    "ca-malformed": (_E, "put certificates in PEM there"),
    "ca-not-yet-valid": (_E, "look at the clock of whoever made it, or wait"),
    "ca-self-signed-leaf": (_W, "make a CA and a server certificate signed by it, as kbs init does"),
    "ca-used-as-server": (
        _W,
        "sign a leaf with it: guests refuse a server that shows it (CaUsedAsEndEntity)",
    ),
    "carriage-returns": (
        _W,
        "save it with plain line feeds: tools that mend CR LF on the way change the digest",
    ),
    "cdh-missing": (_W, "add the entry cdh.toml; without it nothing but attestation knows the KBS"),
    "cdh-unreadable": (_E, "mend the TOML in cdh.toml: the confidential data hub will not start"),
    "copy-file-allowed": (_W, "give CopyFileRequest conditions: the host may write any file of a container"),
    "create-allowed": (
        _E,
        "use genpolicy for CreateContainerRequest: the host may start any container",
    ),
    "entry-misspelt": (_W, "nobody reads an entry of this name; the known ones are aa.toml, cdh.toml and policy.rego"),
    "exec-allowed": (_E, "make ExecProcessRequest false or conditional: the host may run any command in the guest"),
    "failing-policy-allowed": (
        _E,
        "make AllowRequestsFailingPolicy false: what the policy denies is done anyway",
    ),
    "kbs-url-differs": (_E, "give aa.toml and cdh.toml the same address"),
    "kbs-url-http": (_W, "use https: the host sees and changes what the guest reads, as far as it is not sealed"),
    "kbs-url-malformed": (_E, "write it as https://HOST:PORT"),
    "kbs-url-missing": (_W, "set token_configs.kbs.url in aa.toml and kbc.url in cdh.toml"),
    "label": (_N, "measured with the rest, and a claim; nothing in the guest reads it"),
    "member-ignored": (_W, "Kata and brokers read version, algorithm and data alone"),
    "name-reserved": (_E, "rename the entry: brokers derive claims of this name and leave the entry out"),
    "policy-allows-all": (_E, "use genpolicy: this policy allows whatever the host asks for"),
    "policy-data-commented": (
        _E,
        "take it out: brokers find it by its text, and no rule enforces what it says",
    ),
    "policy-data-not-last": (_W, "move policy_data to the end, as strict JSON: brokers find no agent_policy_claims"),
    "policy-missing": (
        _W,
        "add policy.rego; else that of the guest image is in force, which mostly allows all",
    ),
    "policy-package": (_E, "write package agent_policy: the agent asks no other"),
    "private-key": (_E, "take the key out, and make a new one: the host and every broker read init data"),
    "resource-uri": (_E, "write kbs:///REPOSITORY/TYPE/TAG"),
    "resource-uri-host": (_E, "write three slashes, kbs:///REPOSITORY/TYPE/TAG: what follows two is taken for a host"),
    "set-policy-allowed": (_E, "make SetPolicyRequest false: the host may replace the policy"),
    "set-policy-undeclared": (_W, "write default SetPolicyRequest := false, so that everybody sees it"),
    "version-not-started": (_E, "use version 0.1.0: Kata starts no other"),
}
"""Name → severity, and what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at. where: entry of the document, or `document`. text: what was seen; safe to print."""

    name: str
    where: str
    text: str

    @property
    def severity(self) -> Severity:
        """By the name alone."""
        return FINDINGS[self.name][0]

    @property
    def hint(self) -> str:
        """What to do about it."""
        return FINDINGS[self.name][1]
