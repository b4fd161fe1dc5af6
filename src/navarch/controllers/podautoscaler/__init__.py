"""HorizontalPodAutoscaler: how many replicas a scalable object should have, by metrics of its pods or of anything else.

`sync` looks every 15 seconds; `target` finds what is scaled, `readings` asks the metrics APIs, `metrics` makes a
proposal of each metric by the arithmetic of `replicas`, and `behavior` holds the result to limits, rates and windows.
"""

from navarch.controllers.podautoscaler.sync import HorizontalPodAutoscalerController

__all__ = ["HorizontalPodAutoscalerController"]
