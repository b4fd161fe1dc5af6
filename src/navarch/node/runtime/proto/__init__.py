"""The Container Runtime Interface: messages (generated from the `.proto` files here) and the calls that carry them."""
