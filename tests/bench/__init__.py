"""`make bench`: full handshakes against a real broker, from another process, over plain HTTP with kept connections."""
