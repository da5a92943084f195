"""The audit record: what was decided, for whom, by which rules. Written before the answer leaves."""
