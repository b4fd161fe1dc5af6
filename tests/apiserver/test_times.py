"""Times before the year 1000, as the published suite's Lease has them, in JSON and in protobuf."""

from __future__ import annotations

import pytest

from navarch.api import protobuf
from tests.apiserver.conftest import Api

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


@pytest.mark.parametrize("media_type", ["application/json", protobuf.MEDIA_TYPE])
@pytest.mark.parametrize("time", ["0001-01-01T00:00:02.000000Z", "0987-06-05T04:03:02.000001Z"])
async def test_a_lease_of_long_ago_is_stored_as_it_was_sent(api: Api, media_type: str, time: str) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "old"},
        "spec": {"acquireTime": time, "renewTime": time, "leaseDurationSeconds": 30},
    }
    body = lease if media_type == "application/json" else protobuf.encode(lease)

    made = await api.ok("POST", LEASES, body, content_type=media_type)

    assert made["spec"] == lease["spec"]
    assert (await api.ok("GET", f"{LEASES}/old"))["spec"] == lease["spec"]
