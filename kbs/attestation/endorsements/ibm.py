"""IBM's words for endorsements of Secure Execution: files that an operator keeps, since no service answers by machine.

    ibm/host-key/<id>       a host-key document: X.509, DER or PEM
    ibm/certificate/<id>    a certificate of its chain
    ibm/crl/<id>            a revocation list of that chain

`<id>` is the operator's, 1 to 64 lower-case letters, digits and dashes.

Source: verifiers 9.3.
"""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "ibm/"
_NAME: Final = re.compile("ibm/(?P<kind>host-key|certificate|crl)/(?P<id>[a-z0-9][a-z0-9-]{0,63})")


def parse_name(name: str) -> tuple[str, str]:
    """Kind (`host-key`, `certificate`, `crl`) and id in a name.

    Raises:
        ValueError: any other text.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError("not a name of an IBM endorsement")
    return match["kind"], match["id"]
