"""What nodes and pods use (`metrics.k8s.io`), which kubectl's `top` shows and HorizontalPodAutoscalers go by."""
