"""Controllers of kinds that an API server need not serve: another version of Kubernetes has none, or they are off.

In: discovery, once at the start. Such a controller asks for its informers when it knows that they have something to
follow, and else rests: an informer of what is not served would ask for it in vain for as long as the cluster runs.
"""

from __future__ import annotations

from typing import ClassVar

from navarch.api.meta import Resource
from navarch.client.served import served_in_the_end
from navarch.controllers.base import Controller


class OptionalController(Controller):
    """Subclasses name what they `need` and ask for informers in `follow`, not in `__init__`."""

    needs: ClassVar[Resource]

    async def run(self) -> None:
        served = await served_in_the_end(self.client, self.needs)
        if served is not None:
            self.follow(served)
            await super().run()

    def follow(self, served: Resource) -> None:
        """Ask for informers; `served` is what the controller needs, in a version that there is."""
        raise NotImplementedError
