"""Key Broker Service for Confidential Containers."""

__version__ = "0.1.0"
