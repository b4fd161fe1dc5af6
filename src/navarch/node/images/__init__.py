"""Container images: as files, and on the node."""
