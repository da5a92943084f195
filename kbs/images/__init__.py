"""Encrypted container images: layers, the keys that wrap theirs, and where images live.

Source: guest-components 2; OCI image-spec 1.1; OCI distribution-spec 1.1; ocicrypt's key-provider protocol.
"""
