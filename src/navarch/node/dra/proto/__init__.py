"""The DRA plugin API: messages (generated from the `.proto` file here)."""
