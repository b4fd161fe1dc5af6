"""Pod specs that were found to be in order: the pods of one template are all alike, and are looked at once.

In: a pod.  Out: what validation and warnings say of its spec, from memory where a spec like it has been seen. Alike
are specs that differ at most in the random name of the volume with the service account's token; specs of which more
than themselves counts (a claim is named after the pod) are looked at each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import orjson

from navarch.api.errors import FieldError
from navarch.api.meta import Obj
from navarch.kinds.core.pod_validation import validate_pod
from navarch.kinds.core.pod_warnings import pod_spec_warnings

_REMEMBERED: Final = 4096
_TOKEN_VOLUME: Final = "kube-api-access-"
_TOKEN_VOLUME_NAME: Final = re.compile(_TOKEN_VOLUME + "[a-z0-9]{5}")


class SoundSpecs:
    """Remembers by fingerprint; starts over when there are too many."""

    def __init__(self) -> None:
        # The spec that was looked at last: the same write asks for its warnings next.
        self._last: tuple[Obj, bytes] | None = None
        self._valid: set[bytes] = set()
        self._silent: set[bytes] = set()

    def validate(self, pod: Obj) -> Iterator[FieldError]:
        """As `validate_pod`."""
        spec = pod["spec"]
        alone = _stands_alone(spec)
        print_ = fingerprint(spec)
        self._last = spec, print_
        if alone and print_ in self._valid:
            return
        sound = alone
        for error in validate_pod(pod):
            sound = False
            yield error
        if sound:
            if len(self._valid) >= _REMEMBERED:
                self._valid.clear()
            self._valid.add(print_)

    def warnings(self, spec: Obj) -> tuple[str, ...]:
        """As `pod_spec_warnings`."""
        last, self._last = self._last, None
        print_ = last[1] if last is not None and last[0] is spec else fingerprint(spec)
        if print_ in self._silent:
            return ()
        found = tuple(pod_spec_warnings(spec))
        # Texts may name the volume, and be long: only that there are none is worth remembering.
        if not found:
            if len(self._silent) >= _REMEMBERED:
                self._silent.clear()
            self._silent.add(print_)
        return found


def _stands_alone(spec: Obj) -> bool:
    """Whether the spec by itself tells whether it is sound."""
    if spec.get("resourceClaims"):
        return False
    return not any("ephemeral" in volume for volume in spec.get("volumes") or ())


def fingerprint(spec: Obj) -> bytes:
    """Equal for specs that are alike."""
    data = orjson.dumps(spec)
    for volume in spec.get("volumes") or ():
        name = volume.get("name") or ""
        if name.startswith(_TOKEN_VOLUME) and _TOKEN_VOLUME_NAME.fullmatch(name):
            data = data.replace(b'"%s"' % name.encode(), b'"kube-api-access-"')
            break
    return blake2b(data, digest_size=16).digest()
