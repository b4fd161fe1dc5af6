"""Hooks and handlers: what `postStart`, `preStop` and probes do in or against a container (exec, HTTP, TCP, sleep).

Of a hook's HTTP request any answer counts as success, of a probe's one from 200 to 399: both as in Kubernetes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.runtime.base import Runtime, RuntimeFailure, TimedOut
from navarch.numbers import is_digits, saturated

_BODY_LIMIT: Final = 10 << 10
_HOOK_TIMEOUT_S: Final = 30.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 10
# An exec hook ends when its command does; only the pod's grace period bounds it.
_EXEC_HOOK_TIMEOUT_S: Final = 3600.0


class Outcome(NamedTuple):
    """Whether a handler succeeded, and its output or the reason of its failure; `warning` says that it succeeded in a
    way that its owner may not have meant."""

    ok: bool
    output: str = ""
    warning: bool = False


class _Failed(Exception):
    """No answer. `speaks_http` says that a TLS client met a server without."""

    def __init__(self, words: str, *, speaks_http: bool = False) -> None:
        super().__init__(words)
        self.speaks_http = speaks_http


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
        """A probe: success is a status from 200 to 399. Redirects are followed on the same host; one that leads to
        another host counts as success, with a warning."""
        try:
            status, body = await self._ask(url, headers, timeout_s)
        except _Failed as error:
            return Outcome(False, str(error))
        if 200 <= status < 300:
            return Outcome(True, body)
        if 300 <= status < 400:
            return Outcome(True, f"Probe terminated redirects, Response body: {body}", warning=True)
        return Outcome(False, f"HTTP probe failed with statuscode: {status}")

    async def hook(self, url: str, headers: Mapping[str, str], fell_back: Callable[[], None]) -> Outcome:
        """A hook: success is any answer. A server without TLS is asked again in plain HTTP, and `fell_back` called."""
        try:
            await self._ask(url, headers, _HOOK_TIMEOUT_S)
        except _Failed as error:
            if not error.speaks_http:
                return Outcome(False, str(error))
            plain = CIMultiDict(headers)
            plain.popall("Authorization", None)
            try:
                await self._ask(f"http{url.removeprefix('https')}", plain, _HOOK_TIMEOUT_S)
            except _Failed:
                return Outcome(False, str(error))
            fell_back()
        return Outcome(True)

    async def _ask(self, url: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
        """GET, following redirects on the same host: the status of the last answer, and its body.  Raises _Failed."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._follow(URL(url, encoded=True), headers)
        except TimeoutError:
            words = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            raise _Failed(f'Get "{url}": {words}') from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if "WRONG_VERSION_NUMBER" in str(error):
                words = "http: server gave HTTP response to HTTPS client"
                raise _Failed(f'Get "{url}": {words}', speaks_http=True) from error
            raise _Failed(f'Get "{url}": {_go_words(error)}') from error

    async def _follow(self, url: URL, headers: Mapping[str, str]) -> tuple[int, str]:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._insecure, force_close=True, limit=0)
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=jar)
        first = url
        for _ in range(_MOST_REDIRECTS):
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                body = (await answer.content.read(_BODY_LIMIT)).decode(errors="replace")
                location = answer.headers.get("Location")
                if answer.status not in _REDIRECTS or not location:
                    return answer.status, body
                url = url.join(URL(location, encoded="%" in location))
                if url.host != first.host:
                    return answer.status, body
        raise ValueError(f"stopped after {_MOST_REDIRECTS} redirects")

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


def http_request(container: Obj, action: Obj, pod_ip: str, agent: str) -> tuple[str, Mapping[str, str]]:
    """The URL and headers of an `httpGet`.  Raises ValueError for an unknown port name."""
    host = action.get("host") or pod_ip
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    if not path.startswith("/"):
        path = f"/{path}"
    headers: CIMultiDict[str] = CIMultiDict()
    for header in action.get("httpHeaders") or []:
        headers.add(header["name"], header.get("value") or "")
    headers.setdefault("User-Agent", agent)
    headers.setdefault("Accept", "*/*")
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


def _nobody_is_told(kind: str, reason: str, message: str) -> None:
    pass


async def run_hook(
    runtime: Runtime,
    caller: HTTPCaller,
    pod: Obj,
    container: Obj,
    hook: Obj,
    container_id: str,
    pod_ip: str,
    tell: Callable[[str, str, str], None] = _nobody_is_told,
) -> Outcome:
    """Run a postStart or preStop handler to its end; `tell` makes an event of type, reason and message."""
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
        words = f"request to HTTPS lifecycle hook {URL(url).authority} got HTTP response, retry with HTTP succeeded"
        return await caller.hook(url, headers, lambda: tell("Warning", "LifecycleHTTPFallback", words))
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
