"""The key-provider protocol as gRPC: `keyprovider.proto` and what `make proto` makes of it."""
