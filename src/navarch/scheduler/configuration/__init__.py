"""Kubernetes' `KubeSchedulerConfiguration`: read, checked in Kubernetes' words, and made into profiles. Start reading
in `reading.py`."""
