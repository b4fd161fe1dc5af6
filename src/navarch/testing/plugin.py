"""The pytest plugin: a cluster inside a test, in well under a second, without root or sockets."""
