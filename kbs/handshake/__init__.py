"""RCAR: Request → Challenge → Attestation → token. The state machine and its one-use nonce."""
