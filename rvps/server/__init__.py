"""`rvps serve`: a provider in a process of its own."""
