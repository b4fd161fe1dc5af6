"""The container runtime, as the kubelet speaks to it."""
