"""Where things are kept: a key-value port with versions and compare-and-set, and its implementations."""
