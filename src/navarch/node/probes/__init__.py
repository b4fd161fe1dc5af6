"""Probes and hooks: what is done in or against a running container."""
