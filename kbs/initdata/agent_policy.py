"""What an agent's policy allows whoever asks, read from its text: requests whose rule is true without a condition.

Rego is not evaluated here. Comments and strings are taken out first, so that neither a rule in a comment counts nor a
comment sign in a string hides one. What needs more than a look at single rules is left to `opa`.

Source: guest-components 4.6 (Kata agent policy, package `agent_policy`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from kbs.attestation.init_data import DATA_CLAIM, RULES_CLAIM, parse_init_data
from kbs.initdata.toml_text import basic

DATA: Final = "policy_data := {"

_TOKENS: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*')
_DEFAULT: Final = re.compile(r"^[ \t]*default[ \t]+([A-Za-z_]\w*)[ \t]*:?=[ \t]*(true|false)\b", re.MULTILINE)
_PLAIN: Final = re.compile(r"^[ \t]*([A-Za-z_]\w*)[ \t]*:?=[ \t]*true[ \t]*$", re.MULTILINE)
_HEAD: Final = r"^[ \t]*([A-Za-z_]\w*)(?:[ \t]*:?=[ \t]*true)?"
_BODY: Final = re.compile(_HEAD + r"(?:[ \t]+if)?[ \t]*\{\s*true[\s;]*\}", re.MULTILINE)
_IF: Final = re.compile(_HEAD + r"[ \t]+if[ \t]+true[ \t]*$", re.MULTILINE)
_PACKAGE: Final = re.compile(r"^[ \t]*package[ \t]+([\w.]+)", re.MULTILINE)
_MENTIONED: Final = re.compile(r"\bSetPolicyRequest\b")


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """What its text shows.

    package: None: it names none. allowed: requests that need nothing to be allowed, sorted. declared: names that have a
    default. mentions_set_policy: whether SetPolicyRequest stands in it at all. data: whether `policy_data` is found by
    brokers. hidden_data: it is, and stands in a comment or a string. misplaced_data: it is there, and something follows
    it. rules_digest: see `kbs.attestation.init_data.RULES_CLAIM`.
    """

    package: str | None
    allowed: tuple[str, ...]
    declared: frozenset[str]
    mentions_set_policy: bool
    data: bool
    hidden_data: bool
    misplaced_data: bool
    rules_digest: str


def look_at(text: str) -> AgentPolicy:
    """Read a policy of any form; what is no Rego at all shows nothing."""
    head, there, _ = text.partition(DATA)
    bare = _TOKENS.sub(_blank, head if there else text)
    defaults = dict(_DEFAULT.findall(bare))
    always = {name for form in (_PLAIN, _BODY, _IF) for name in form.findall(bare)}
    named = _PACKAGE.search(bare)
    data = bool(there) and _is_found(text)
    return AgentPolicy(
        package=None if named is None else named[1],
        allowed=tuple(sorted(always | {name for name, value in defaults.items() if value == "true"})),
        declared=frozenset(defaults),
        mentions_set_policy=_MENTIONED.search(bare) is not None,
        data=data,
        hidden_data=data and not _is_code(head),
        misplaced_data=bool(there) and not data,
        rules_digest=hashlib.sha256(head.encode()).hexdigest(),
    )


def _blank(found: re.Match[str]) -> str:
    return '""' if found[0][0] != "#" else ""


def _is_found(text: str) -> bool:
    """Asked of the broker's own extraction."""
    document = f'version = ""\nalgorithm = "sha256"\n[data]\n"policy.rego" = {basic(text)}\n'
    claims = parse_init_data(document).claims
    return DATA_CLAIM in claims and RULES_CLAIM in claims


def _is_code(head: str) -> bool:
    """Whether what follows `head` is neither in a comment nor in a string."""
    marker = "\0"
    return marker in _TOKENS.sub(_blank, f"{head}{marker}\n")
