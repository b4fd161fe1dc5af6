"""Secret: `stringData` folded into `data`, the keys that each type promises, immutability.

Invariant: what is stored has `data` in base64 and never `stringData`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, immutable, invalid_value, required, too_long
from navarch.api.go_text import go_kind
from navarch.api.json_errors import why_no_json
from navarch.api.meta import Obj
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.configmap import LIMIT_BYTES, decoded_size, validate_data_keys, validate_frozen
from navarch.kinds.core.key_pairs import pair_problem
from navarch.kinds.strategies import strategy

_REDACTED: Final = "<secret contents redacted>"
_ACCOUNT_ANNOTATION: Final = "kubernetes.io/service-account.name"
_SSH: Final = "kubernetes.io/ssh-auth"
_TLS: Final = "kubernetes.io/tls"
_NEEDED: Final = {
    _SSH: ("ssh-privatekey",),
    _TLS: ("tls.crt", "tls.key"),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
}
_JSON: Final = ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson")


def _data_cell(obj: Obj, now: datetime) -> int:
    return len(obj.get("data") or ())


@strategy("", "Secret")
class SecretStrategy(Strategy):
    columns = (
        NAME,
        Column("Type", ".type", description="What the secret is for"),
        Column("Data", _data_cell, description="How many keys it has"),
        AGE,
    )
    selectable = ("type",)

    def defaults(self, obj: Obj) -> None:
        if not obj.get("type"):
            obj["type"] = "Opaque"
        texts = obj.pop("stringData", None)
        if texts:
            data = obj.setdefault("data", {})
            for key, text in texts.items():
                data[key] = base64.b64encode(text.encode()).decode()

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        if obj.get("type") == _TLS:
            data = obj.get("data") or {}
            certificate, key = (base64.b64decode(data.get(name) or "") for name in _NEEDED[_TLS])
            if problem := pair_problem(certificate, key):
                yield problem

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if old is not None:
            if obj.get("type") != old.get("type"):
                yield immutable("type", obj.get("type"))
            yield from validate_frozen(obj, old, ("data",))
        data = obj.get("data") or {}
        yield from validate_data_keys(data, "data")
        if sum(map(decoded_size, data.values())) > LIMIT_BYTES:
            yield too_long("data", LIMIT_BYTES)
        yield from _validate_type(obj, data)


def _validate_type(obj: Obj, data: dict[str, str]) -> Iterator[FieldError]:
    kind = obj.get("type", "")
    if kind == "kubernetes.io/service-account-token":
        if not (obj["metadata"].get("annotations") or {}).get(_ACCOUNT_ANNOTATION):
            yield required(f"metadata.annotations[{_ACCOUNT_ANNOTATION}]")
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            yield required("data[username]")
            yield required("data[password]")
    else:
        for key in _NEEDED.get(kind, ()):
            # An empty private key is none; a file that is empty is at least there.
            if key not in data or (kind == _SSH and not data[key]):
                yield required(f"data[{key}]")
            elif kind in _JSON:
                yield from _validate_json(data[key], f"data[{key}]")


def _validate_json(encoded: str, path: str) -> Iterator[FieldError]:
    """A JSON object, or null, which Go takes for an empty one."""
    text = base64.b64decode(encoded)
    try:
        parsed = json.loads(text)
    except ValueError as error:
        yield invalid_value(path, _REDACTED, why_no_json(text) or str(error))
        return
    if parsed is not None and not isinstance(parsed, dict):
        detail = f"json: cannot unmarshal {go_kind(parsed)} into Go value of type map[string]interface {{}}"
        yield invalid_value(path, _REDACTED, detail)
