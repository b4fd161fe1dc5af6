"""Simulated nodes: the Node and Pod API as a kubelet serves it, without containers."""
