"""Event logs: what was measured into registers that a quote covers.

`ccel` (TDX, CSV), `tcg` (TPM firmware logs), `runtime` (the attestation agent's log standing alone) and `ima` (Linux
file measurements) each have a `replay` that takes a log and register values under a verified signature, and gives a
`ReplayedLog` or raises `EventLogMalformed` or `EventLogMismatch`.
"""
