"""Pod validation, probes and lifecycle hooks: exactly one well-formed handler each, and sane numbers.

In: a container's probes and hooks with their paths.  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import (
    regex_problem,
    validate_non_negative,
    validate_port,
    validate_port_or_name,
)

_HEADER_NAME: Final = re.compile("[-A-Za-z0-9]+")
_PROBE_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "sleep")
_SIGNALS: Final = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
]
_STOP_SIGNALS: Final = {
    "linux": sorted(
        [*_SIGNALS, "SIGRTMIN", "SIGRTMAX"]
        + [f"SIGRTMIN+{number}" for number in range(1, 16)]
        + [f"SIGRTMAX-{number}" for number in range(1, 15)]
    ),
    "windows": ["SIGKILL", "SIGTERM"],
}
_PROBE_NUMBERS: Final = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)


def validate_probes(container: Obj, path: str, grace_s: int) -> Iterator[FieldError]:
    """All probes of a container."""
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe, at = container.get(name), f"{path}.{name}"
        if probe is None:
            continue
        yield from _validate_probe(probe, at, grace_s)
        if name == "readinessProbe":
            if (value := probe.get("terminationGracePeriodSeconds")) is not None:
                yield invalid_value(f"{at}.terminationGracePeriodSeconds", value, "must not be set for readinessProbes")
        elif (threshold := probe.get("successThreshold", 1)) != 1:
            yield invalid_value(f"{at}.successThreshold", threshold, "must be 1")


def _validate_probe(probe: Obj, path: str, grace_s: int) -> Iterator[FieldError]:
    yield from _validate_handler(probe, path, _PROBE_HANDLERS, grace_s)
    for name in _PROBE_NUMBERS:
        yield from validate_non_negative(probe.get(name, 0), f"{path}.{name}")
    own_grace = probe.get("terminationGracePeriodSeconds")
    if own_grace is not None and own_grace <= 0:
        yield invalid_value(f"{path}.terminationGracePeriodSeconds", own_grace, "must be greater than 0")


def validate_lifecycle(lifecycle: Obj, path: str, grace_s: int, system: Obj | None) -> Iterator[FieldError]:
    """`postStart`, `preStop` and `stopSignal` of a container; `system` is the pod's `os`."""
    for name in ("postStart", "preStop"):
        hook = lifecycle.get(name)
        if hook is not None:
            yield from _validate_handler(hook, f"{path}.{name}", _HOOK_HANDLERS, grace_s)
    signal, at = lifecycle.get("stopSignal"), f"{path}.stopSignal"
    if signal is None:
        return
    if system is None:
        yield forbidden_field(at, "may not be set for containers with empty `spec.os.name`")
    elif (supported := _STOP_SIGNALS.get(system.get("name") or "")) and signal not in supported:
        yield not_supported(at, signal, supported)


def _validate_handler(owner: Obj, path: str, names: tuple[str, ...], grace_s: int) -> Iterator[FieldError]:
    given = [name for name in names if owner.get(name) is not None]
    if not given:
        yield required(path, "must specify a handler type")
        return
    for surplus in given[1:]:
        yield forbidden_field(f"{path}.{surplus}", "may not specify more than 1 handler type")
    name, at = given[0], f"{path}.{given[0]}"
    handler = owner[name]
    if name == "exec":
        if not handler.get("command"):
            yield required(f"{at}.command")
    elif name == "httpGet":
        yield from _validate_http(handler, at)
    elif name == "tcpSocket":
        yield from validate_port_or_name(handler.get("port", 0), f"{at}.port")
    elif name == "grpc":
        yield from validate_port(handler.get("port", 0), f"{at}.port")
    else:
        seconds = handler.get("seconds", 0)
        if seconds < 0 or seconds > grace_s:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
            yield invalid_value(at, seconds, detail)


def _validate_http(action: Obj, path: str) -> Iterator[FieldError]:
    if not action.get("path"):
        yield required(f"{path}.path")
    yield from validate_port_or_name(action.get("port", 0), f"{path}.port")
    scheme = action.get("scheme") or ""
    if scheme not in ("HTTP", "HTTPS"):
        yield not_supported(f"{path}.scheme", scheme, ("HTTP", "HTTPS"))
    for header in action.get("httpHeaders") or ():
        name = header.get("name") or ""
        if not _HEADER_NAME.fullmatch(name):
            text = "a valid HTTP header must consist of alphanumeric characters or '-'"
            problem = regex_problem(text, "[-A-Za-z0-9]+", "X-Header-Name")
            yield invalid_value(f"{path}.httpHeaders", name, problem)
