"""Kubernetes: the controller in the trusted cluster, the webhook in workload clusters, and what both agree on."""
