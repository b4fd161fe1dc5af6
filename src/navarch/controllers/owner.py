"""`Owner`: what all controllers share whose objects own others: pods, or ReplicaSets.

In: events of the owned objects. Out: the key of the owner, of the one before it, or of those that might adopt
an orphan.
"""

from __future__ import annotations

from typing import ClassVar

from navarch.api.meta import Obj, Resource, controller_of, is_deleting, key_of, labels_of
from navarch.api.selectors import LabelSelector, label_selector_of
from navarch.controllers.adoption import candidates_for, manager_of
from navarch.controllers.base import Context, Controller, index_by_controller


class Owner(Controller):
    """Subclasses name the `resource` that owns, the one that is `owned`, and the `component` in whose name events are
    told."""

    resource: ClassVar[Resource]
    owned: ClassVar[Resource]
    component: ClassVar[str]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder(self.component)
        self.owners = self.watch_primary(self.resource, self.is_news)
        self.dependents = self.informer(self.owned)
        index_by_controller(self.dependents)
        self.dependents.add_handler(self._added, self._updated, self._deleted)

    # What subclasses may change.

    def selector(self, owner: Obj) -> LabelSelector:
        return label_selector_of(owner["spec"].get("selector"))

    def is_news(self, owner: Obj) -> bool:
        """Whether an event of the owner itself asks for a pass."""
        return True

    def calm_s(self, owner: Obj) -> float:
        """How long to wait for more changes of the same kind, so that one pass takes them all in."""
        return 0.0

    def wait_s(self, owner: Obj, old: Obj, new: Obj) -> float | None:
        """How long a pass over the owner may wait after a dependent's change; None where the change asks for none."""
        return self.calm_s(owner)

    def came(self, owner: Obj, obj: Obj) -> bool:
        """A dependent has appeared; True where it was the last that was waited for."""
        return False

    def went(self, owner: Obj, obj: Obj) -> None:
        """A dependent is gone or about to go."""

    # Events of what is owned.

    def owner_of(self, obj: Obj) -> Obj | None:
        return manager_of(self.owners, self.resource, obj)

    def _added(self, obj: Obj) -> None:
        if is_deleting(obj):
            self._deleted(obj)
            return
        owner = self.owner_of(obj)
        if owner is not None:
            self.enqueue(key_of(owner), 0.0 if self.came(owner, obj) else self.calm_s(owner))
        else:
            self._enqueue_candidates(obj)

    def _enqueue_candidates(self, obj: Obj) -> None:
        for owner in candidates_for(self.owners, obj, self.selector):
            self.enqueue(key_of(owner))

    def _updated(self, old: Obj, new: Obj) -> None:
        if is_deleting(new) and not is_deleting(old):
            self._deleted(new)
            return
        before, after = controller_of(old), controller_of(new)
        if before is not None and (after is None or after["uid"] != before["uid"]):
            former = self.owner_of(old)
            if former is not None:
                self.enqueue(key_of(former))
        owner = self.owner_of(new)
        if owner is not None:
            wait_s = self.wait_s(owner, old, new)
            if wait_s is not None:
                self.enqueue(key_of(owner), wait_s)
        elif before is not None or labels_of(old) != labels_of(new):
            self._enqueue_candidates(new)

    def _deleted(self, obj: Obj) -> None:
        owner = self.owner_of(obj)
        if owner is not None:
            self.went(owner, obj)
            self.enqueue(key_of(owner))
