"""Joining a cluster from another machine: from a URL and a token to a configuration that this machine can be a node by.

The server is not believed before it has proved itself: what it says of its authority must have the hash that was
given, or carry a signature made with the token. Only then is the token sent, over a connection that is held to that
authority.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import re
import ssl
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from navarch.apiserver.auth.bootstrap import CLUSTER_INFO, NODE_SETTINGS
from navarch.cluster.config import DEFAULT_PORT, ClusterConfig, ConfigError
from navarch.cluster.invitation import SHARED, ca_hash, certificates_of
from navarch.cluster.lifecycle import StartError
from navarch.cluster.readiness import is_schedulable
from navarch.world import MACHINE

_TOKEN: Final = re.compile(r"(?:K10(?P<hash>[0-9a-f]{64})::)?(?P<token>(?P<id>[a-z0-9]{6})\.(?P<secret>[a-z0-9]{16}))")
_HASH: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_LIMIT_S: Final = 15.0
# What is read of one answer, also of a server that has not proved who it is: objects are smaller.
_LARGEST: Final = 3 << 20
_INFO_PATH: Final = f"/api/v1/namespaces/kube-public/configmaps/{CLUSTER_INFO}"
_SETTINGS_PATH: Final = f"/api/v1/namespaces/kube-system/configmaps/{NODE_SETTINGS}"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a user was given: where the cluster is, the token, and the hash of its CA (empty: by signature)."""

    server: str
    token: str
    ca_hash: str = ""

    @classmethod
    def of(cls, server: str, token: str, pin: str) -> Invitation:
        """Raises ConfigError."""
        matched = _TOKEN.fullmatch(token.strip())
        if matched is None:
            raise ConfigError(
                "invalid --token: it looks like abcdef.0123456789abcdef; `navarch token create` makes one"
            )
        pin = pin.strip().lower() or matched["hash"] or ""
        hashed = _HASH.fullmatch(pin)
        if pin and hashed is None:
            raise ConfigError(f"invalid --ca-hash {pin!r}: it is `sha256:` and 64 hexadecimal digits")
        return cls(url_of(server), matched["token"], f"sha256:{hashed[1]}" if hashed else "")


def url_of(server: str) -> str:
    """Raises ConfigError."""
    text = server.strip().rstrip("/")
    parts = urlsplit(text if "//" in text else f"https://{text}")
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        port = 0
    if parts.scheme != "https" or not parts.hostname or not port or parts.path:
        raise ConfigError(f"invalid --server {server!r}: write it like https://192.168.1.20:{DEFAULT_PORT}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}:{port}"


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster that has proved itself: its authority in PEM, and what its nodes have in common."""

    ca: bytes
    settings: dict[str, Any]


def discover(invitation: Invitation) -> Found:
    """Raises StartError where the server cannot be reached, proves to be another, or does not take the token."""
    info = _answer(invitation.server, _INFO_PATH, _unverified())
    ca = _proved(invitation, info.get("data") or {})
    verified = ssl.create_default_context(cadata=ca.decode())
    answer = _answer(invitation.server, _SETTINGS_PATH, verified, invitation.token)
    try:
        settings = json.loads(answer["data"]["settings"])
        return Found(ca, {name: str(settings[name]) for name in SHARED})
    except (KeyError, TypeError, ValueError):
        raise StartError(f"{invitation.server} does not say what its nodes have in common: is it Navarch?") from None


def refuse_namesake(invitation: Invitation, found: Found, name: str) -> None:
    """Raises StartError where a node of that name is in the cluster and well: this would be a second one."""
    verified = ssl.create_default_context(cadata=found.ca.decode())
    status, body = _ask(invitation.server, f"/api/v1/nodes/{name}", verified, invitation.token)
    if status == 200 and is_schedulable(json.loads(body)):
        raise StartError(
            f"there is a node {name!r} in the cluster already, and it is Ready; choose another name with --node-name"
        )


def as_agent(config: ClusterConfig, invitation: Invitation, found: Found) -> ClusterConfig:
    """The configuration with what was found out; the authority and the token are written into its folder."""
    config = replace(config, server=invitation.server, **found.settings)
    config.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    (config.pki / "ca.crt").write_bytes(found.ca)
    token = config.pki / "bootstrap-token"
    token.touch(mode=0o600)
    token.write_text(invitation.token)
    return config


def _proved(invitation: Invitation, said: dict[str, str]) -> bytes:
    """The authority, if it is what was promised.  Raises StartError."""
    try:
        (cluster,) = json.loads(said["kubeconfig"])["clusters"]
        ca = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
        hashes = {ca_hash(each): each for each in certificates_of(ca)}
    except (KeyError, TypeError, ValueError) as error:
        raise StartError(f"{invitation.server} does not say who it is ({error}): is it Navarch?") from None
    if invitation.ca_hash:
        # That one alone: what else is said beside it nobody has vouched for.
        if invitation.ca_hash not in hashes:
            raise StartError(
                f"{invitation.server} is not the cluster that was meant: its CA has {', '.join(hashes)}, "
                f"expected was {invitation.ca_hash}"
            )
        return hashes[invitation.ca_hash]
    from navarch.controllers.bootstrap_signer import signature

    token_id, secret = invitation.token.split(".")
    signed = said.get(f"jws-kubeconfig-{token_id}", "")
    if not hmac.compare_digest(signed, signature(said["kubeconfig"], token_id, secret)):
        raise StartError(
            f"{invitation.server} cannot prove that it knows the token: it is over, or of another cluster; "
            "`navarch token create` on the server makes a new one, --ca-hash proves the cluster without it"
        )
    return ca


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _answer(server: str, path: str, tls: ssl.SSLContext, token: str = "") -> dict[str, Any]:
    status, body = _ask(server, path, tls, token)
    if status == 401:
        raise StartError(f"{server} does not take the token: it is over, or was taken back; `navarch token create`")
    if status != 200:
        # Whoever answers may not be who was meant: nothing of it moves the terminal's cursor.
        said = "".join(each if each.isprintable() else " " for each in body[:200].decode(errors="replace"))
        raise StartError(f"{server} answered {status} to {path}: {said}")
    try:
        answer = json.loads(body)
    except ValueError:
        raise StartError(f"{server} does not answer {path} in JSON: is it Navarch?") from None
    return answer if isinstance(answer, dict) else {}


def _ask(server: str, path: str, tls: ssl.SSLContext, token: str = "") -> tuple[int, bytes]:
    """Raises StartError where no answer came."""
    parts = urlsplit(server)
    until_s = MACHINE.monotonic() + _LIMIT_S
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=_LIMIT_S, context=tls)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, _bounded(answer, server, until_s)
    except ssl.SSLCertVerificationError as error:
        raise StartError(f"{server}: {error.verify_message}") from None
    except (OSError, http.client.HTTPException) as error:
        raise StartError(
            f"cannot reach {server}: {error}; the server has to listen there (`navarch up --bind-address …`)"
        ) from None
    finally:
        connection.close()


def _bounded(answer: http.client.HTTPResponse, server: str, until_s: float) -> bytes:
    """Raises StartError for an answer that is too large, OSError for one that does not end."""
    parts, size = [], 0
    while part := answer.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            raise StartError(f"{server} answers with more than {_LARGEST >> 20} MB: is it Navarch?")
        if MACHINE.monotonic() > until_s:
            raise TimeoutError("the answer does not end")
    return b"".join(parts)
