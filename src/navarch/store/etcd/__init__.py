"""etcd v3 as the store: the cluster's state on several machines, with any number of API servers.

`target` reads the URL, `client` makes calls (endpoints, TLS, passwords, errors), `watching` follows, `leases` lets keys
expire, `store` puts them behind the seam.
"""
