"""`make policy-corpus`: everything against everything. Ends non-zero when the engines disagree, or when time is up."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from kbs.policy.engine import PolicyKind
from kbs.policy.opa import OpaEngine
from kbs.policy.opa_link import OpaLink, OpaServerSettings
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from tests.opa_binary import find_opa, start_opa
from tests.policy_corpus.claims import everything, tokens
from tests.policy_corpus.comparison import Comparison, Report

NOW = datetime(2026, 6, 15, tzinfo=UTC)


@contextmanager
def opa_engine(opa: Path) -> Iterator[OpaEngine]:
    """An engine on a server of its own: OPA compiles everything it holds with each module that is added."""
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        path = Path(folder) / "s"
        server = start_opa(opa, path)
        try:
            yield OpaEngine(OpaLink(OpaServerSettings(socket=path, timeout=20)))
        finally:
            server.kill()
            server.wait()


def main() -> int:
    """0 when both engines agreed everywhere and nothing hostile helped."""
    parser = argparse.ArgumentParser(prog="make policy-corpus", description=__doc__)
    parser.add_argument("--mutations", type=int, default=20, help="of each claim set, for each policy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30, help="after which no further policy is begun")
    parser.add_argument("--policy", action="append", help="only these, such as evidence/cpu")
    options = parser.parse_args()
    opa = find_opa()
    if opa is None:
        print("no opa here; `make opa` gets it", file=sys.stderr)
        return 1
    shipped, report, started = Shipped.load(), Report(), time.monotonic()
    claim_sets, token_claims = everything(), tokens()
    wasm = WasmEngine(lambda: NOW)
    names = options.policy or shipped.names()
    left_out: list[str] = []
    for name in names:
        if time.monotonic() - started > options.minutes * 60:
            left_out.append(name)
            continue
        random, policy, before = Random(f"{options.seed} {name}"), shipped.policy(name), report.asked
        with opa_engine(opa) as server:
            comparison = Comparison(wasm, server, report)
            if policy.kind is PolicyKind.EVIDENCE:
                for claims in claim_sets:
                    comparison.evidence(policy, claims, options.mutations, random)
            else:
                for label, token in token_claims:
                    comparison.resource(policy, label, token, options.mutations, random)
        print(f"{name:32} {report.asked - before:7} questions", flush=True)
    wasm.close()
    for line in report.wrong[:20]:
        print(f"WRONG {line}")
    if left_out:
        print(f"after {options.minutes:g} minutes, not asked: {', '.join(left_out)}")
    print(
        f"{len(claim_sets)} claim sets, {len(token_claims)} tokens, {report.asked} questions to both engines, "
        f"{len(report.wrong)} wrong, {time.monotonic() - started:.0f} s"
    )
    return 1 if report.wrong or left_out else 0


if __name__ == "__main__":
    sys.exit(main())
