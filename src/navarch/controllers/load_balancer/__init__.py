"""The embedded load balancer: Services of type LoadBalancer get addresses of nodes.

`sync` is the controller; `addresses` says, purely, which nodes may serve, at which addresses, and who has which port.
"""

from navarch.controllers.load_balancer.sync import LoadBalancerController

__all__ = ["LoadBalancerController"]
