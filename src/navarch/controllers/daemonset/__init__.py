"""DaemonSets: one pod on each node that fits.

`sync` is the controller, `placement` says which nodes fit and how a pod is tied to one, `update` which pods a rolling
update replaces next, `revisions` puts right the revisions that others have made.
"""

from navarch.controllers.daemonset.sync import DaemonSetController

__all__ = ["DaemonSetController"]
