"""Messages of the device plugin and the pod resources API, generated from the `.proto` files here."""
