"""What a connect request asks for, as the object that admission sees: PodExecOptions and the like, read from the query.

In: a Call.  Out: the options object; and from the options, as admission left them, the kubelet's path and query. Pure.
"""

from __future__ import annotations

from typing import Final

from navarch.api.errors import bad_request
from navarch.api.meta import Obj
from navarch.apiserver.call import Call
from navarch.numbers import integer_or

# Fields of the options by (kind, subresource): texts, booleans, lists.
_KINDS: Final = {"attach": "PodAttachOptions", "exec": "PodExecOptions", "portforward": "PodPortForwardOptions"}
_PROXIES: Final = {"pods": "PodProxyOptions", "services": "ServiceProxyOptions", "nodes": "NodeProxyOptions"}
_BOOLEANS: Final = ("stdin", "stdout", "stderr", "tty")
# The kubelet's own words for them.
_KUBELET_FLAGS: Final = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}


def options_of(call: Call) -> Obj:
    """Raises StatusError 400 for a port that is none."""
    subresource, query = call.route.subresource, call.request.query
    if subresource == "proxy":
        return {"apiVersion": "v1", "kind": _PROXIES[call.route.plural], "path": "/" + call.route.rest}
    options: Obj = {"apiVersion": "v1", "kind": _KINDS[subresource]}
    if subresource == "portforward":
        ports = [part for name, text in query if name in ("ports", "port") for part in text.split(",") if part]
        numbers = [integer_or(part, 0) for part in ports]
        if not all(0 < number < 65536 for number in numbers):
            raise bad_request(f"invalid port in {ports}")
        if numbers:
            options["ports"] = numbers
        return options
    given = dict(reversed(query))
    for name in _BOOLEANS:
        if name in given and _is_true(given[name]):
            options[name] = True
    if given.get("container"):
        options["container"] = given["container"]
    if subresource == "exec" and (command := [text for name, text in query if name == "command"]):
        options["command"] = command
    return options


def _is_true(text: str) -> bool:
    """A flag that is there is set, unless it says no."""
    return text.lower() not in ("0", "false")


def kubelet_request(
    subresource: str, namespace: str, name: str, container: str, options: Obj
) -> tuple[str, list[tuple[str, str]]]:
    """The path and the query by which the kubelet is asked.  Raises StatusError 400."""
    if subresource == "portforward":
        return f"/portForward/{namespace}/{name}", [("port", str(port)) for port in options.get("ports") or ()]
    query = [("command", str(word)) for word in options.get("command") or ()]
    if subresource == "exec" and not query:
        raise bad_request("you must specify at least 1 command for the container")
    query += [(word, "1") for flag, word in _KUBELET_FLAGS.items() if options.get(flag)]
    return f"/{subresource}/{namespace}/{name}/{container}", query
