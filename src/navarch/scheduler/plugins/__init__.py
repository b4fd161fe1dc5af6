"""Kubernetes' own filters and scores, one file each."""
