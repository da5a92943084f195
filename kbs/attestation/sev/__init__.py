"""The core of AMD SEV-SNP: a report's bytes, the keys that AMD vouches for, and how the two must agree.

`report` reads bytes, `chain` and `revocation` establish trust, `checks` compares, `verification` does all of it in
order, `claims` tells. How a report travels, and what it must be bound to, is left to the verifiers that share this.
"""
