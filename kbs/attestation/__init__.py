"""The Verifier role (RFC 9334): Evidence in, Attestation Result out. Read `model.py` first."""
