"""The Container Storage Interface: messages (generated from the `.proto` file here)."""
