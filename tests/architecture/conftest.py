"""The brokers of the protocol tests."""

from tests.protocol.conftest import broker, edge, shared_modules, standing

__all__ = ["broker", "edge", "shared_modules", "standing"]
