"""The kubelet's HTTPS server and what it answers: logs, streams, statistics."""
