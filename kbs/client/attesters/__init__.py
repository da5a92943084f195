"""Software attesters: structurally right evidence of every TEE, under a test root that nobody else trusts.

They stand in for hardware: in tests, and for people who try a broker out. Each is written against its vendor's
documents and not against our verifier, so that one checks the other.
"""
