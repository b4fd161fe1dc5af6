"""One request of server-side apply: what it states, and the object that comes of it.

In: a call with a configuration.  Out: `applied`, a function from the stored object (None: there is none yet) to the
wanted one, whose managed fields are brought up to date. The configuration is taken as it was sent, without defaults:
an applier owns what it states, no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from navarch.api import apply as managed
from navarch.api.errors import StatusError, bad_request, unexplained
from navarch.api.go_text import go_kind
from navarch.api.meta import Obj
from navarch.api.scalar_decoders import DecodeError
from navarch.apiserver import decoding
from navarch.apiserver.call import Call
from navarch.apiserver.patch_errors import converter_text


class Applying:
    def __init__(self, call: Call, now: Callable[[], str]) -> None:
        self._call = call
        self._now = now
        self._config: Obj = {}
        self._ignored = call.kind.strategy.resets(call.route.subresource, has_status=call.kind.has_status)

    def read(self) -> None:
        """Raises StatusError 400."""
        self._config = read_configuration(self._call)

    def applied(self, live: Obj | None) -> Obj:
        """Raises StatusError 400, 409, 500."""
        call, kind = self._call, self._call.kind
        compiled = kind.compiled
        assert compiled is not None
        obj = managed.apply(
            live,
            self._config,
            compiled.root,
            manager=call.manager,
            force=call.force,
            api_version=kind.resource.api_version,
            kind=kind.resource.kind,
            subresource=call.route.subresource,
            now=self._now(),
            ignored=self._ignored,
            custom=kind.own_schemas is not None,
        )
        try:
            compiled.checked(obj)
        except DecodeError as error:
            raise _not_convertible(self._config, converter_text(error)) from None
        compiled.default(obj)
        warn_of_duplicates(call)
        self._check_place(obj)
        return obj

    def _check_place(self, obj: Obj) -> None:
        """Raises StatusError 400 for what is named otherwise than the path."""
        call = self._call
        metadata = obj.setdefault("metadata", {})
        if call.namespace and metadata.setdefault("namespace", call.namespace) != call.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        decoding.check_name(obj, call.route.name)


def read_configuration(call: Call) -> Obj:
    """Raises StatusError 400."""
    try:
        body: Any = decoding.parsed(call.request)
    except ValueError as error:
        raise bad_request(f"error decoding YAML: {error}") from None
    if body is None:
        return {}
    if not isinstance(body, dict):
        what = f"json: cannot unmarshal {go_kind(body)} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {what}")
    return body


def warn_of_duplicates(call: Call) -> None:
    """What a configuration says twice is told, or refused with 400."""
    duplicates = decoding.duplicates_of(call.request)
    if not duplicates:
        return
    validation = decoding.field_validation_of(call.request)
    if validation == "Strict":
        said = "\n".join(f"  {text}" for text in duplicates)
        raise bad_request(f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n{said}")
    if validation == "Warn":
        call.warnings.extend(duplicates)


def _not_convertible(config: Obj, why: str) -> StatusError:
    where, of_type = managed.describe(config), managed.type_of(config)
    return unexplained(
        f"failed to convert new object ({where}) to proper version: "
        f"unable to convert unstructured object to {of_type}: {why}"
    )
