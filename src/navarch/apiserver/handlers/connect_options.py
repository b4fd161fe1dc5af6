"""What a connect request asks for, as the object that admission sees: PodExecOptions and the like, read from the query.

In: a Call.  Out: the options object; and from the options, as admission left them, the kubelet's path and query. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from navarch.api.errors import FieldError, bad_request, forbidden_field, invalid, invalid_value, not_supported
from navarch.api.meta import Obj
from navarch.api.schema_scalars import ScalarError, canonical_time
from navarch.apiserver.call import Call
from navarch.numbers import ascii_integer, integer_or

# Fields of the options by (kind, subresource): texts, booleans, lists.
_KINDS: Final = {"attach": "PodAttachOptions", "exec": "PodExecOptions", "portforward": "PodPortForwardOptions"}
_PROXIES: Final = {"pods": "PodProxyOptions", "services": "ServiceProxyOptions", "nodes": "NodeProxyOptions"}
_STREAMS: Final = ("All", "Stderr", "Stdout")
_CHECKED: Final = frozenset({"sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"})
_SHOWN: Final = 256
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


def check_log_options(call: Call, *, streams: bool) -> None:
    """Whether what is asked of a log makes sense; `streams` where one of two may be asked for.
    Raises StatusError 400, 422."""
    given = dict(reversed(call.request.query))
    if given.keys().isdisjoint(_CHECKED):
        return
    numbers: dict[str, int] = {}
    # In the order of Kubernetes' fields.
    for name in ("sinceSeconds", "sinceTime", "tailLines", "limitBytes"):
        if name == "sinceTime":
            _check_time(given.get(name, ""))
        elif name in given:
            try:
                numbers[name] = ascii_integer(given[name])
            except ValueError as error:
                raise bad_request(f'strconv.ParseInt: parsing "{given[name][:_SHOWN]}": {error}') from None
    errors = list(_wrong_log_options(numbers, given, streams=streams))
    if errors:
        raise invalid("PodLogOptions", "", call.route.name, errors)


def _check_time(text: str) -> None:
    """Raises StatusError 400."""
    if text in ("", "null"):
        return
    try:
        canonical_time(text[:_SHOWN])
    except ScalarError as error:
        raise bad_request(str(error)) from None


def _wrong_log_options(numbers: Mapping[str, int], given: Mapping[str, str], *, streams: bool) -> Iterator[FieldError]:
    if numbers.get("tailLines", 0) < 0:
        yield invalid_value("tailLines", numbers["tailLines"], "must be greater than or equal to 0")
    if numbers.get("limitBytes", 1) < 1:
        yield invalid_value("limitBytes", numbers["limitBytes"], "must be greater than 0")
    if "sinceSeconds" in numbers and "sinceTime" in given:
        yield forbidden_field("", "at most one of `sinceTime` or `sinceSeconds` may be specified")
    elif numbers.get("sinceSeconds", 1) < 1:
        yield invalid_value("sinceSeconds", numbers["sinceSeconds"], "must be greater than 0")
    stream = given.get("stream")
    if stream is None:
        return
    if not streams:
        yield forbidden_field("stream", "may not be specified")
        return
    if stream not in _STREAMS:
        yield not_supported("stream", stream, _STREAMS)
    if stream != "All" and "tailLines" in numbers:
        yield forbidden_field("", "`tailLines` and specific `stream` are mutually exclusive for now")


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
