"""`rvps`: reference values, from the build that makes them to the broker that compares with them."""

from __future__ import annotations

import click

from rvps.cli import lookups, signing, values, workflow
from rvps.cli.compute import compute
from rvps.cli.difference import diff
from rvps.cli.imports import import_command
from rvps.cli.learn import learn
from rvps.cli.serve import serve
from rvps.cli.verification import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Reference values: what attested machines are compared with."""


for _command in (
    values.register,
    values.query,
    values.list_values,
    values.withdraw,
    compute,
    import_command,
    learn,
    serve,
):
    main.add_command(_command)
for _command in (signing.keygen, signing.sign, signing.sign_approval, signing.sign_revocation, signing.attach, verify):
    main.add_command(_command)
for _command in (
    workflow.statements,
    workflow.show_command,
    workflow.approve,
    workflow.revoke,
    diff,
    lookups.why,
    lookups.expiring,
    lookups.drift,
    lookups.misses,
):
    main.add_command(_command)
main.add_command(values.register, "publish")  # one command: `register` is the word of the field's tool
