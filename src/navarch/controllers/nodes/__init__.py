"""Nodes: are they alive, what does that mean for their pods, which addresses do their pods get.

`lifecycle` watches heartbeats and writes conditions and taints (`taints` says which), `zones` slows evictions down when
much of a zone is gone, `eviction` removes pods that do not tolerate a NoExecute taint, `ipam` gives out pod CIDRs.
"""

from navarch.controllers.nodes.eviction import TaintEvictionController
from navarch.controllers.nodes.ipam import NodeIPAMController
from navarch.controllers.nodes.lifecycle import NodeLifecycleController

__all__ = ["NodeIPAMController", "NodeLifecycleController", "TaintEvictionController"]
