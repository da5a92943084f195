"""The product doing its job, for people: `make demo`. Everything runs as real processes in a temporary directory."""
