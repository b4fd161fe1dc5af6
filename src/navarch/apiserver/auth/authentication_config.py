"""AuthenticationConfiguration (`apiserver.config.k8s.io/v1`): issuers of tokens, and where anonymous users may go.

In: Kubernetes' file.  Out: the issuers, and what is said of anonymous requests. What cannot be is refused with the
field's path, all of it at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from navarch.api.cel.environment import Environment, Program
from navarch.api.cel.errors import CompileError
from navarch.api.cel.types import BOOL, Type
from navarch.api.config_files import TEXTS, ListOf, Shape, ShapeError, Struct, fit
from navarch.api.meta import Obj
from navarch.api.yaml_reader import load
from navarch.apiserver.auth.jwt_issuers import CLAIMS, USERS, Check, From, Issuer
from navarch.apiserver.auth.outbound import trusting
from navarch.records import frozen

_VERSIONS: Final = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


_RULE: Final = Struct({"claim": str, "requiredValue": str, "expression": str, "message": str})
_PREFIXED: Final = Struct({"claim": str, "prefix": str, "expression": str})
_MAPPINGS: Final = Struct(
    {
        "username": _PREFIXED,
        "groups": _PREFIXED,
        "uid": Struct({"claim": str, "expression": str}),
        "extra": ListOf(Struct({"key": str, "valueExpression": str})),
    }
)
_ISSUER: Final = Struct(
    {
        "url": str,
        "discoveryURL": str,
        "certificateAuthority": str,
        "audiences": TEXTS,
        "audienceMatchPolicy": str,
        "egressSelectorType": str,
    }
)
_JWT: Final = Struct(
    {
        "issuer": _ISSUER,
        "claimValidationRules": ListOf(_RULE),
        "claimMappings": _MAPPINGS,
        "userValidationRules": ListOf(Struct({"expression": str, "message": str})),
    }
)
_SHAPE: Final[Mapping[str, Shape]] = {
    "jwt": ListOf(_JWT),
    "anonymous": Struct({"enabled": bool, "conditions": ListOf(Struct({"path": str}))}),
}
_MOST_ISSUERS: Final = 64
# What extra keys are not for.
_RESERVED: Final = ("kubernetes.io", "k8s.io")
# Both are looked for without the white space that may be between their parts.
_EMAIL: Final = re.compile(r"\bclaims(?:\.email\b|\[['\"]email['\"]\])", re.ASCII)
_VERIFIED: Final = re.compile(r"\bclaims(?:\.\??email_verified\b|\[\??['\"]email_verified['\"]\])", re.ASCII)


class AuthenticationError(ValueError):
    """The configuration cannot be used; the message says where and why."""


@frozen
class AnonymousAccess:
    """`paths`: nowhere else; None for everywhere that they are authorized."""

    enabled: bool = True
    paths: frozenset[str] | None = None


@frozen
class AuthenticationConfiguration:
    """`anonymous` None: the flag decides."""

    issuers: tuple[Issuer, ...] = ()
    anonymous: AnonymousAccess | None = None


def read(path: Path, own: Collection[str] = ()) -> AuthenticationConfiguration:
    """`own` are the issuers of this server's own tokens, which nobody else can be.  Raises AuthenticationError."""
    try:
        document = load(path.read_bytes()).value
    except (OSError, ValueError) as error:
        raise AuthenticationError(f"failed to load authentication configuration from file {path}: {error}") from None
    return parse(document, own)


def parse(document: Any, own: Collection[str] = ()) -> AuthenticationConfiguration:
    """Raises AuthenticationError."""
    if (
        not isinstance(document, dict)
        or document.get("apiVersion") not in _VERSIONS
        or document.get("kind") != "AuthenticationConfiguration"
    ):
        raise AuthenticationError("the file is no AuthenticationConfiguration of apiserver.config.k8s.io/v1")
    try:
        fit(document, _SHAPE)
    except ShapeError as error:
        raise AuthenticationError(str(error)) from None
    reader = _Reader()
    stated = document.get("jwt") or []
    if len(stated) > _MOST_ISSUERS:
        reader.wrong(f"jwt: Too many: {len(stated)}: must have at most {_MOST_ISSUERS} items")
    issuers = tuple(reader.issuer(f"jwt[{index}]", each) for index, each in enumerate(stated))
    urls = [issuer.url for issuer in issuers]
    discovered = [issuer.discovery_url for issuer in issuers]
    for index, (url, discovery) in enumerate(zip(urls, discovered, strict=True)):
        if url in urls[:index]:
            reader.wrong(f'jwt[{index}].issuer.url: Duplicate value: "{url}"')
        if discovery and discovery in discovered[:index]:
            reader.wrong(f'jwt[{index}].issuer.discoveryURL: Duplicate value: "{discovery}"')
        if url in own:
            overlap = f"URL must not overlap with disallowed issuers: {', '.join(own)}"
            reader.wrong(f'jwt[{index}].issuer.url: Invalid value: "{url}": {overlap}')
    anonymous = reader.anonymous(document.get("anonymous"))
    if reader.problems:
        problems = reader.problems
        raise AuthenticationError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return AuthenticationConfiguration(issuers, anonymous)


class _Reader:
    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, problem: str) -> None:
        self.problems.append(problem)

    def anonymous(self, stated: Any) -> AnonymousAccess | None:
        if stated is None:
            return None
        enabled, conditions = stated.get("enabled") is True, stated.get("conditions")
        if conditions and not enabled:
            self.wrong("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined")
        paths = frozenset(str(condition.get("path") or "") for condition in conditions or [])
        return AnonymousAccess(enabled, paths if conditions else None)

    def issuer(self, path: str, stated: Obj) -> Issuer:
        said = stated.get("issuer") or {}
        url, audiences = str(said.get("url") or ""), tuple(map(str, said.get("audiences") or ()))
        if not url:
            self.wrong(f"{path}.issuer.url: Required value: URL is required")
        else:
            self.url(f"{path}.issuer.url", url)
        if discovery := said.get("discoveryURL") or "":
            self.url(f"{path}.issuer.discoveryURL", discovery)
            if discovery.rstrip("/") == url.rstrip("/"):
                why = "discoveryURL must be different from URL"
                self.wrong(f'{path}.issuer.discoveryURL: Invalid value: "{discovery}": {why}')
        if not audiences:
            self.wrong(f"{path}.issuer.audiences: Required value: at least one {path}.issuer.audiences is required")
        elif len(audiences) > 1 and said.get("audienceMatchPolicy") != "MatchAny":
            why = "audienceMatchPolicy must be MatchAny for multiple audiences"
            policy = said.get("audienceMatchPolicy") or ""
            self.wrong(f'{path}.issuer.audienceMatchPolicy: Invalid value: "{policy}": {why}')
        try:
            context = trusting(str(said.get("certificateAuthority") or ""))
        except ValueError as error:
            self.wrong(f"{path}.issuer.certificateAuthority: Invalid value: <omitted>: {error}")
            context = None
        mappings = stated.get("claimMappings") or {}
        where = f"{path}.claimMappings"
        username = self._from(f"{where}.username", mappings.get("username") or {}, prefixed=True)
        if not username.is_stated:
            self.wrong(f"{where}.username: Required value: claim or expression is required")
        self.email(where, stated)
        required, claim_checks = self._claim_rules(f"{path}.claimValidationRules", stated)
        return Issuer(
            url,
            audiences,
            username,
            str(said.get("discoveryURL") or ""),
            context,
            groups=self._from(f"{where}.groups", mappings.get("groups") or {}, prefixed=True),
            uid=self._from(f"{where}.uid", mappings.get("uid") or {}, prefixed=False),
            extra=self._extra(f"{where}.extra", mappings.get("extra") or []),
            required=required,
            claim_checks=claim_checks,
            user_checks=self._checks(f"{path}.userValidationRules", stated.get("userValidationRules") or [], USERS),
        )

    def url(self, path: str, stated: str) -> None:
        try:
            parts = urlsplit(stated)
        except ValueError as error:
            self.wrong(f'{path}: Invalid value: "{stated}": {error}')
            return
        if parts.scheme != "https":
            self.wrong(f'{path}: Invalid value: "{stated}": URL scheme must be https')
        if "@" in parts.netloc:
            self.wrong(f'{path}: Invalid value: "{stated}": URL must not contain a username or password')
        if parts.query:
            self.wrong(f'{path}: Invalid value: "{stated}": URL must not contain a query')
        if parts.fragment:
            self.wrong(f'{path}: Invalid value: "{stated}": URL must not contain a fragment')

    def email(self, path: str, stated: Obj) -> None:
        """Who names users by their addresses has to look whether these are known to be theirs."""
        mappings = stated.get("claimMappings") or {}
        named = (mappings.get("username") or {}).get("expression") or ""
        if not _EMAIL.search(_packed(named)):
            return
        extra = [each.get("valueExpression") or "" for each in mappings.get("extra") or []]
        rules = [each.get("expression") or "" for each in stated.get("claimValidationRules") or []]
        if not any(_VERIFIED.search(_packed(expression)) for expression in (named, *extra, *rules)):
            why = (
                "claims.email_verified must be used in claimMappings.username.expression or "
                "claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is "
                "used in claimMappings.username.expression"
            )
            self.wrong(f'{path}.username.expression: Invalid value: "{named}": {why}')

    def _from(self, path: str, stated: Obj, *, prefixed: bool) -> From:
        claim, expression, prefix = stated.get("claim") or "", stated.get("expression") or "", stated.get("prefix")
        if claim and expression:
            self.wrong(f'{path}: Invalid value: "": claim and expression can\'t both be set')
        if expression and prefix is not None:
            self.wrong(f'{path}.prefix: Invalid value: "{prefix}": prefix can\'t be set when expression is set')
        if prefixed and claim and prefix is None:
            why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
            self.wrong(f"{path}.prefix: Required value: {why}")
        program = self._program(f"{path}.expression", expression, CLAIMS) if expression else None
        return From(claim, prefix or "", program)

    def _claim_rules(self, path: str, stated: Obj) -> tuple[Mapping[str, str], list[Check]]:
        required: dict[str, str] = {}
        rest = []
        for index, rule in enumerate(stated.get("claimValidationRules") or []):
            if rule.get("claim") and rule.get("expression"):
                self.wrong(f"{path}[{index}]: Invalid value: claim and expression can't both be set")
            elif rule.get("claim") in required:
                self.wrong(f'{path}[{index}].claim: Duplicate value: "{rule["claim"]}"')
            elif rule.get("claim"):
                required[str(rule["claim"])] = str(rule.get("requiredValue") or "")
            else:
                rest.append((index, rule))
        checks = [check for index, rule in rest for check in self._checks(f"{path}[{index}]", [rule], CLAIMS, one=True)]
        return required, checks

    def _checks(self, path: str, rules: list[Obj], environment: Environment, *, one: bool = False) -> list[Check]:
        found = []
        for index, rule in enumerate(rules):
            where = path if one else f"{path}[{index}]"
            expression = rule.get("expression") or ""
            if not expression:
                what = f"{where}: Required value: claim or" if one else f"{where}.expression: Required value:"
                self.wrong(f"{what} expression is required")
                continue
            program = self._program(f"{where}.expression", expression, environment, BOOL)
            if program is not None:
                message = rule.get("message") or f"validation expression '{expression}' failed"
                found.append(Check(program, message))
        return found

    def _extra(self, path: str, stated: list[Obj]) -> tuple[tuple[str, Program], ...]:
        found: list[tuple[str, Program]] = []
        for index, each in enumerate(stated):
            key, expression = str(each.get("key") or ""), each.get("valueExpression") or ""
            where = f"{path}[{index}].key"
            if not key or "/" not in key or key != key.lower():
                self.wrong(f'{where}: Invalid value: "{key}": must be a lower-case domain-prefixed path')
            domain = key.partition("/")[0]
            if any(domain == reserved or domain.endswith(f".{reserved}") for reserved in _RESERVED):
                why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
                self.wrong(f'{where}: Invalid value: "{key}": {why}')
            if any(key == known for known, _ in found):
                self.wrong(f'{where}: Duplicate value: "{key}"')
            if not expression:
                self.wrong(f"{path}[{index}].valueExpression: Required value: valueExpression is required")
                continue
            program = self._program(f"{path}[{index}].valueExpression", expression, CLAIMS)
            if program is not None:
                found.append((key, program))
        return tuple(found)

    def _program(
        self, path: str, expression: str, environment: Environment, result: Type | None = None
    ) -> Program | None:
        try:
            program = environment.compile(expression)
            if result is not None and program.type != result:
                self.wrong(f'{path}: Invalid value: "{expression}": compilation failed: must evaluate to {result}')
            return program
        except CompileError as error:
            self.wrong(f'{path}: Invalid value: "{expression}": compilation failed: {error}')
            return None


def _packed(expression: str) -> str:
    return "".join(expression.split())
