"""TPM 2.0: what a quote says, who signed it, and which PCR values it covers.

`wire` reads octets, `quote` and `signature` a quote and its signature, `pcrs` compares values with it, `public` and
`keys` tell what kind of key signed. Whether that key is trusted is for the verifiers that use this.

Source: TCG, Trusted Platform Module Library 2.0, Part 1 (Architecture) and Part 2 (Structures), family 2.0, 1.59.
"""
