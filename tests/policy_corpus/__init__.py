"""Both policy engines over the same inputs: all shipped policies, the claims of every TEE, and their mutations."""
