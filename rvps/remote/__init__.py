"""A provider in another process, as a broker reaches it."""
