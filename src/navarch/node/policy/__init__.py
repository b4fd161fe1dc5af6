"""NetworkPolicy, enforced on each node with nftables for the pods that run there."""

from navarch.node.policy.runner import PolicyConfig as PolicyConfig
from navarch.node.policy.runner import PolicyEnforcer as PolicyEnforcer
from navarch.node.policy.runner import cleanup as cleanup
