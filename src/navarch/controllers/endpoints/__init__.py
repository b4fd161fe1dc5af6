"""Where a Service's traffic goes: Endpoints, EndpointSlices, and slices that mirror hand-made Endpoints.

`addresses` says what a pod contributes, `legacy` writes Endpoints, `slices` writes EndpointSlices by the plan that
`reconciliation` makes, `mirroring` copies Endpoints that people wrote into slices.
"""

from navarch.controllers.endpoints.legacy import EndpointsController
from navarch.controllers.endpoints.mirroring import EndpointSliceMirroringController
from navarch.controllers.endpoints.slices import EndpointSliceController

__all__ = ["EndpointSliceController", "EndpointSliceMirroringController", "EndpointsController"]
