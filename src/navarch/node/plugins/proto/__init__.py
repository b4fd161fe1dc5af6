"""The kubelet's plugin registration: messages (generated from the `.proto` file here)."""
