"""The kubelet's engine: what pods this node has, a worker for each, what to do next and what to report of it."""
