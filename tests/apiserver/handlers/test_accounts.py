"""Tokens that are asked for: what the answer says of the request, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from navarch.apiserver.auth.tokens import ServiceAccountTokens
from navarch.apiserver.server import ApiServer
from navarch.world import RealWorld
from tests.apiserver.auth.reader import ListReader
from tests.apiserver.conftest import Api

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
POD = {
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "pod-1"},
    "spec": {"serviceAccountName": "robot"},
}


@pytest.fixture
async def uid(api: Api, server: ApiServer, tmp_path: Path) -> str:
    """That of the account `robot`, whose tokens are asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "sa.key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    issuer = ServiceAccountTokens(
        file,
        issuers=["https://issuer"],
        api_audiences=["https://api"],
        reader=ListReader(POD),
        world=RealWorld(1),
    )
    server.use(token_issuer=issuer)
    account = await api.ok("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    return str(account["metadata"]["uid"])


def request(metadata: Any = None, **spec: Any) -> Any:
    answer = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return answer if metadata is None else {**answer, "metadata": metadata}


async def test_the_answer_says_what_was_not_said(api: Api, uid: str) -> None:
    answer = await api.ok("POST", f"{ACCOUNTS}/robot/token", request())

    assert answer["spec"] == {"audiences": ["https://api"], "expirationSeconds": 3600, "boundObjectRef": None}
    metadata = answer["metadata"]
    assert (metadata["name"], metadata["namespace"], metadata["uid"]) == ("robot", "default", uid)
    [entry] = metadata["managedFields"]
    assert (entry["subresource"], entry["fieldsV1"]) == ("token", {"f:spec": {"f:expirationSeconds": {}}})
    assert answer["status"].keys() == {"token", "expirationTimestamp"}


@pytest.mark.parametrize(
    ("body", "code", "message", "details"),
    [
        (
            request(expirationSeconds=10),
            422,
            'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 10: may not '
            "specify a duration less than 10 minutes",
            None,
        ),
        (
            request({"name": "other"}),
            422,
            'TokenRequest.authentication.k8s.io "robot" is invalid: metadata.name: Invalid value: "other": must match '
            "the service account name if specified",
            None,
        ),
        (
            request({"namespace": "other"}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
            None,
        ),
        (
            request(boundObjectRef={"apiVersion": "v1", "kind": "ConfigMap", "name": "c"}),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
            None,
        ),
        (
            request(boundObjectRef={"apiVersion": "v1", "kind": "Secret", "name": "c"}),
            404,
            'secrets "c" not found',
            None,
        ),
        (
            request(boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "x"}),
            409,
            'Operation cannot be fulfilled on Pod "web": the UID in the bound object reference (x) does not match the '
            "UID in record. The object might have been deleted and then recreated",
            {"name": "web", "kind": "Pod"},
        ),
        (
            {"apiVersion": "v1", "kind": "ServiceAccount"},
            400,
            'ServiceAccount in version "v1" cannot be handled as a TokenRequest: converting (v1.ServiceAccount) to '
            "(authentication.TokenRequest): unknown conversion",
            None,
        ),
    ],
)
async def test_what_is_refused(api: Api, uid: str, body: Any, code: int, message: str, details: Any) -> None:
    status, answer = await api("POST", f"{ACCOUNTS}/robot/token", body)

    assert (status, answer["message"]) == (code, message)
    if details is not None:
        assert answer["details"] == details


async def test_a_token_of_another_incarnation_is_refused(api: Api, uid: str) -> None:
    status, answer = await api("POST", f"{ACCOUNTS}/robot/token", request({"uid": "gone"}))

    why = f"the UID in the token request (gone) does not match the UID of the service account ({uid})"
    assert status == 409
    assert answer["message"] == f'Operation cannot be fulfilled on TokenRequest.authentication.k8s.io "robot": {why}'
