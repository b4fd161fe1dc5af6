"""ImageLocality: prefer nodes that have the pod's images already, the large ones above all."""

from __future__ import annotations

import numpy as np

from navarch.scheduler.columns import FloatArray
from navarch.scheduler.framework import Plugin
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

_LEAST = 23 * 1024 * 1024
_MOST_PER_CONTAINER = 1000 * 1024 * 1024


class ImageLocality(Plugin):
    """Score nodes by the size of the pod's images on them, each weighed by how many nodes have it, so that pods do not
    all crowd onto the one node that pulled first."""

    name = "ImageLocality"

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        return any(normalized(image) in nodes.columns.images for image in pod.traits.images)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        columns = nodes.columns
        total = np.zeros(columns.capacity)
        for image in pod.traits.images:
            sizes = columns.images.get(normalized(image), {})
            spread = len(sizes) / max(columns.node_count, 1)
            for row, size in sizes.items():
                total[row] += int(size * spread)
        most = _MOST_PER_CONTAINER * len(pod.traits.images)
        clamped = np.clip(total[nodes.rows], _LEAST, most)
        return np.floor(100 * (clamped - _LEAST) / (most - _LEAST))


def normalized(image: str) -> str:
    """The name with its tag, `latest` where there is none, as nodes report it."""
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"
