"""One resource request on its way through the server: what was asked, by whom, of which kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from navarch.api.errors import bad_request
from navarch.api.meta import Obj
from navarch.apiserver.decoding import APPLY, media_type_of
from navarch.apiserver.negotiation import Form
from navarch.apiserver.routes import Route, is_true
from navarch.apiserver.served import ServedKind
from navarch.apiserver.user import User
from navarch.apiserver.write_options import check_write_options
from navarch.apiserver.writes import Origin
from navarch.client.transport import Request
from navarch.records import mutable

_MANAGER_MAX = 128
# Characters of all warnings together, and of one where they are more than that.
_WARNINGS_MAX = 4096
_WARNING_MAX = 256
_OPTIONS_KIND = {
    "create": "CreateOptions",
    "update": "UpdateOptions",
    "patch": "PatchOptions",
    "delete": "DeleteOptions",
    "deletecollection": "DeleteOptions",
}


@mutable
class Call:
    request: Request
    route: Route
    verb: str
    kind: ServedKind
    user: User
    form: Form
    warnings: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """The namespace that keys use: empty for cluster-scoped kinds, also for Namespaces themselves."""
        return self.route.namespace if self.kind.resource.namespaced else ""

    @property
    def dry_run(self) -> bool:
        return bool(self.request.query) and any(name == "dryRun" for name, _ in self.request.query)

    @property
    def manager(self) -> str:
        """The field manager: as stated, else the user agent's first word."""
        stated = self.request.arg("fieldManager") if self.request.query else ""
        if stated:
            return stated
        agent = self.request.headers.get("user-agent", "").split("/", 1)[0][:_MANAGER_MAX]
        return agent or "unknown"

    @property
    def force(self) -> bool:
        return is_true(self.request.arg("force", "0"))

    def origin(self) -> Origin:
        """Whose write this is, for the pipeline.  Raises StatusError 422 for options that are none."""
        options: Obj = {"kind": _OPTIONS_KIND.get(self.verb, "CreateOptions"), "apiVersion": "meta.k8s.io/v1"}
        self.check_options()
        dry_run = self.dry_run
        if dry_run:
            options["dryRun"] = ["All"]
        if self.request.query and (manager := self.request.arg("fieldManager")):
            options["fieldManager"] = manager
        own = self.kind.own_schemas
        size = len(self.request.body) + (0 if own is None else own.adds)
        return Origin(self.user, self.manager, dry_run, options, self.warnings, size, self.requested_kind)

    def check_options(self) -> None:
        """Raises StatusError 422."""
        query, patching = self.request.query, self.verb == "patch"
        if query or (patching and self.request.headers["content-type"].startswith(APPLY)):
            applying = patching and media_type_of(self.request).startswith(APPLY)
            check_write_options(query, _OPTIONS_KIND.get(self.verb, "CreateOptions"), applying=applying)

    @property
    def requested_kind(self) -> ServedKind | None:
        """The kind, where its writes go through another version's pipeline."""
        return None if self.kind.to_storage is None else self.kind


def warning_headers(warnings: list[str]) -> Mapping[str, str]:
    """`Warning` as RFC 7234 has it; several texts are one header, separated by commas."""
    if not warnings:
        return {}
    distinct = list(dict.fromkeys(warnings))
    if sum(map(len, distinct)) > _WARNINGS_MAX:
        distinct = _abridged(distinct)
    shown = [f'299 - "{_escaped(text)}"' for text in distinct]
    return {"Warning": ", ".join(shown)}


def _abridged(warnings: list[str]) -> list[str]:
    """Long warnings shortened, and as many as fit: a header that is too long fails the request in many clients."""
    kept: list[str] = []
    left = _WARNINGS_MAX
    for warning in warnings:
        text = warning[:_WARNING_MAX]
        if len(text) > left:
            break
        kept.append(text)
        left -= len(text)
    return kept


def _escaped(text: str) -> str:
    clean = "".join(character if character.isprintable() else " " for character in text)
    return clean.replace("\\", "\\\\").replace('"', '\\"')


def require_name(route: Route) -> str:
    if not route.name:
        raise bad_request("name must be provided")
    return route.name
