"""A pod's specification, read and put into the runtime's terms."""
