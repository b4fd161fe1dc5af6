"""The kubelet's configuration as a file of Kubernetes' form, `KubeletConfiguration`."""
