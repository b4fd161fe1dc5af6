"""Volumes: one module per type. Each makes a directory (or finds a path) on the host that containers mount.

`VolumeManager` (manager.py) sets a pod's volumes up before its containers start, refreshes those that follow objects,
and tears all of them down with the pod.
"""
