"""StatefulSets: pods with a name, a place in a row, and storage that stays theirs.

`sync` is the controller, `identity` what makes a pod the n-th of its set, `claims` its PersistentVolumeClaims.
"""

from navarch.controllers.statefulset.sync import StatefulSetController

__all__ = ["StatefulSetController"]
