"""How a front proxy, known by its certificate, names the user for whom it speaks (Kubernetes' authenticating proxy).

The first of the username headers that is there names the user; without one the proxy speaks for nobody. The values of
all group headers are groups, and what begins with a prefix of extra headers is an extra key, percent-decoded. What was
read is taken out of the request, which may go on to somebody else.
"""

from __future__ import annotations

from urllib.parse import unquote

from navarch.apiserver.impersonation import BETWEEN, NAMING
from navarch.apiserver.user import User
from navarch.client.transport import Request
from navarch.records import frozen


@frozen
class ProxyHeaders:
    """Names of headers, in any case. `allowed` are the common names of proxies' certificates, empty for any."""

    allowed: tuple[str, ...] = ()
    username: tuple[str, ...] = ("X-Remote-User",)
    group: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefix: tuple[str, ...] = ("X-Remote-Extra-",)
    uid: tuple[str, ...] = ()

    def read(self, request: Request, proxy: str) -> User | None:
        """For whom the proxy of that common name speaks; None where it may not, or names nobody."""
        if self.allowed and proxy not in self.allowed:
            return None
        headers = request.headers
        name = _first(request, self.username)
        if not name:
            return None
        groups = tuple(value for key in self.group for value in _values(request, key))
        extra: dict[str, tuple[str, ...]] = {}
        for prefix in self.extra_prefix:
            for header in headers:
                if header.startswith(prefix.lower()):
                    key = unquote(header[len(prefix) :]).lower()
                    extra[key] = (*extra.get(key, ()), *_values(request, header))
        user = User(name, groups, _first(request, self.uid), extra)
        request.headers = {key: value for key, value in headers.items() if not self._is_one(key)}
        return user

    def _is_one(self, header: str) -> bool:
        named = (*self.username, *self.group, *self.uid)
        return header in map(str.lower, named) or header.startswith(tuple(map(str.lower, self.extra_prefix)))


def _values(request: Request, header: str) -> list[str]:
    """Of a header under another name than the usual ones only what HTTP knows is left: a comma between two."""
    name = header.lower()
    between = BETWEEN if name.startswith(NAMING) else ","
    return [value.strip() for value in request.headers.get(name, "").split(between) if value.strip()]


def _first(request: Request, headers: tuple[str, ...]) -> str:
    return next((value for header in headers for value in _values(request, header)), "")
