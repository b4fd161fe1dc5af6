"""Garbage collection: what happens to dependents when their owner is deleted.

`graph` keeps who owns whom from the metadata of all objects, `collector` deletes, orphans and unblocks.
"""

from navarch.controllers.garbage.collector import GarbageCollector

__all__ = ["GarbageCollector"]
