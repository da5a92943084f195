"""What may be released, one per `/kbs/v0/<plugin>`."""
