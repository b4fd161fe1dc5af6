"""Storage drivers behind the Container Storage Interface: which there are on this node, and how they are asked."""
