"""Where a webhook is: what a `clientConfig` may say, for admission and for conversion alike.

In: a client configuration as an object states it.  Out: its defaults, and `FieldError`s in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import dns_subdomain_problems, port_number_problems

DEFAULT_PORT: Final = 443
_FORM: Final = "; desired format: https://host[/path]"


def default_client_config(config: Obj) -> None:
    """The port of a service reference."""
    service = config.get("service")
    if isinstance(service, dict) and service.get("port") is None:
        service["port"] = DEFAULT_PORT


def validate_client_config(config: Obj, path: str) -> Iterator[FieldError]:
    """Exactly one of `url` and `service`, and what is wrong with it."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        yield required(path, "exactly one of url or service is required")
    elif url is not None:
        yield from validate_webhook_url(url, f"{path}.url")
    elif service is not None:
        yield from validate_webhook_service(service, f"{path}.service")


def validate_webhook_url(url: str, path: str) -> Iterator[FieldError]:
    """An absolute HTTPS URL with nothing but host and path."""
    if problem := _unreadable(url):
        yield required(path, f"url must be a valid URL: {problem}{_FORM}")
        return
    parts = urlsplit(url)
    if parts.scheme != "https":
        yield invalid_value(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}")
    user, at, host = parts.netloc.rpartition("@")
    if not host:
        yield invalid_value(path, "", f"host must be specified{_FORM}")
    if at:
        yield invalid_value(path, user, "user information is not permitted in the URL")
    if parts.fragment:
        yield invalid_value(path, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        yield invalid_value(path, parts.query, "query parameters are not permitted in the URL")


def _unreadable(url: str) -> str:
    """What Go says of a text that it does not take for a URL; empty for one that it does."""
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in url):
        return f'parse "{url.encode("unicode_escape").decode()}": net/url: invalid control character in URL'
    scheme, colon, _ = url.partition(":")
    if colon and not scheme:
        return f'parse "{url}": missing protocol scheme'
    if colon and "/" not in scheme and not scheme[0].isalpha():
        return f'parse "{url}": first path segment in URL cannot contain colon'
    try:
        port = urlsplit(url).port
    except ValueError as error:
        host = urlsplit(url).netloc.rpartition("@")[2] if "Port" in str(error) or "port" in str(error) else ""
        if host:
            return f'parse "{url}": invalid port ":{host.rpartition(":")[2]}" after host'
        return f'parse "{url}": {error}'
    del port
    if " " in urlsplit(url).netloc:
        return f'parse "{url}": invalid character " " in host name'
    return ""


def validate_webhook_service(service: Obj, path: str) -> Iterator[FieldError]:
    """The name, the namespace, the port and the path of a service reference."""
    for name in ("name", "namespace"):
        if not service.get(name):
            yield required(f"{path}.{name}")
    port = service.get("port", DEFAULT_PORT)
    if problems := port_number_problems(port):
        yield invalid_value(f"{path}.port", port, f"port is not valid: {', '.join(problems)}")
    if service.get("path") is not None:
        yield from _validate_path(service["path"], f"{path}.path")


def _validate_path(url_path: str, path: str) -> Iterator[FieldError]:
    if url_path in ("", "/"):
        return
    if url_path == "//":
        yield invalid_value(path, url_path, "segment[0] may not be empty")
        return
    if not url_path.startswith("/"):
        yield invalid_value(path, url_path, "must start with a '/'")
    for index, segment in enumerate(url_path[1:].removesuffix("/").split("/")):
        if not segment:
            yield invalid_value(path, url_path, f"segment[{index}] may not be empty")
        for problem in dns_subdomain_problems(segment) if segment else ():
            yield invalid_value(path, url_path, f"segment[{index}]: {problem}")
