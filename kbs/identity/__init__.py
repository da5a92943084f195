"""Which Pod a guest says it is: service-account tokens of workload clusters. Beside evidence, never in its place."""
