"""The wire: RCAR messages, strict decoding, TEE public keys, JWE sealing. Knows no HTTP framework and no store."""
