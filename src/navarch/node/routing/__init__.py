"""Ways to the pods of other nodes: direct routes where nodes share a link, VXLAN where they do not."""

from navarch.node.routing.plan import Mode as Mode
from navarch.node.routing.runner import PodRoutes as PodRoutes
from navarch.node.routing.runner import RoutingConfig as RoutingConfig
