"""Hooks and handlers: what `postStart`, `preStop` and probes do in or against a container (exec, HTTP, TCP, sleep)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple

import aiohttp

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.runtime.base import Runtime, RuntimeFailure, TimedOut
from navarch.numbers import is_digits, saturated

_BODY_LIMIT: Final = 10 << 10
_HOOK_TIMEOUT_S: Final = 30.0
# An exec hook ends when its command does; only the pod's grace period bounds it.
_EXEC_HOOK_TIMEOUT_S: Final = 3600.0


class Outcome(NamedTuple):
    """Whether a handler succeeded, and its output or the reason of its failure."""

    ok: bool
    output: str = ""


def port_number(container: Obj, port: object) -> int:
    """A port given as number or by name.  Raises ValueError for a name that the container does not have."""
    if isinstance(port, int):
        return port
    for one in container.get("ports") or []:
        if one.get("name") == port:
            return int(one["containerPort"])
    if isinstance(port, str) and is_digits(port):
        return saturated(port, 17)
    raise ValueError(f'couldn\'t find port: "{port}" in container')


class HTTPCaller:
    """One HTTP client for all probes and hooks: certificates are not verified, as probes are not, nothing is reused."""

    def __init__(self, version: str) -> None:
        """`version` of Kubernetes is what the other end is told that it is asked by."""
        self.version = version
        self._session: aiohttp.ClientSession | None = None
        self._insecure = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._insecure.check_hostname = False
        self._insecure.verify_mode = ssl.CERT_NONE

    async def get(self, url: str, headers: Mapping[str, str], timeout_s: float) -> Outcome:
        """GET; success is a status from 200 to 399. A redirect to another host counts as success."""
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._insecure, force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as answer:
                body = await answer.content.read(_BODY_LIMIT)
        except TimeoutError:
            return Outcome(
                False,
                f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(False, f'Get "{url}": {_go_words(error)}')
        if 200 <= answer.status < 400:
            return Outcome(True, body.decode(errors="replace"))
        return Outcome(False, f"HTTP probe failed with statuscode: {answer.status}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _go_words(error: Exception) -> str:
    """Connection failures as Go's net package words them, which is how people know them."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError) or getattr(cause, "errno", 0) == 111:
            host = getattr(error, "host", "")
            port = getattr(error, "port", "")
            return f"dial tcp {host}:{port}: connect: connection refused" if host else "connect: connection refused"
        cause = cause.__cause__
    return str(error) or type(error).__name__


def http_request(container: Obj, action: Obj, pod_ip: str, agent: str) -> tuple[str, dict[str, str]]:
    """The URL and headers of an `httpGet`.  Raises ValueError for an unknown port name."""
    host = action.get("host") or pod_ip
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    if not path.startswith("/"):
        path = f"/{path}"
    headers = {"User-Agent": agent, "Accept": "*/*"}
    for header in action.get("httpHeaders") or []:
        headers[header["name"]] = header.get("value") or ""
    return f"{scheme}://{host}:{port_number(container, action['port'])}{path}", headers


async def tcp_connect(host: str, port: int, timeout_s: float) -> Outcome:
    """Success is a connection."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Outcome(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError as error:
        words = "connect: connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
        return Outcome(False, f"dial tcp {host}:{port}: {words}")
    writer.close()
    return Outcome(True)


async def run_hook(
    runtime: Runtime, caller: HTTPCaller, pod: Obj, container: Obj, hook: Obj, container_id: str, pod_ip: str
) -> Outcome:
    """Run a postStart or preStop handler to its end."""
    if hook.get("exec"):
        command = hook["exec"].get("command") or []
        try:
            result = await runtime.exec_sync(container_id, command, _EXEC_HOOK_TIMEOUT_S)
        except TimedOut:
            return Outcome(False, "command timed out")
        except (RuntimeFailure, ConnectionError) as error:
            return Outcome(False, str(error))
        if result.exit_code != 0:
            text = result.output.decode(errors="replace")
            return Outcome(False, f"command '{' '.join(command)}' exited with {result.exit_code}: {text}")
        return Outcome(True)
    if hook.get("httpGet"):
        try:
            url, headers = http_request(container, hook["httpGet"], pod_ip, f"kube-lifecycle/{caller.version}")
        except ValueError as error:
            return Outcome(False, str(error))
        return await caller.get(url, headers, _HOOK_TIMEOUT_S)
    if hook.get("sleep"):
        await asyncio.sleep(float(hook["sleep"]["seconds"]))
        return Outcome(True)
    if hook.get("tcpSocket"):
        host = hook["tcpSocket"].get("host") or pod_ip
        try:
            port = port_number(container, hook["tcpSocket"]["port"])
        except ValueError as error:
            return Outcome(False, str(error))
        return await tcp_connect(host, port, _HOOK_TIMEOUT_S)
    return Outcome(False, f"invalid handler in pod {podspec.quoted(pod)}")
