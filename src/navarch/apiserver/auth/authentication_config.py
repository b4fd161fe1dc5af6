"""AuthenticationConfiguration (`apiserver.config.k8s.io/v1`): issuers of tokens, and where anonymous users may go.

In: Kubernetes' file.  Out: the issuers, and what is said of anonymous requests. What cannot be is refused with the
field's path, all of it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from navarch.api.cel.environment import Environment, Program
from navarch.api.cel.errors import CompileError
from navarch.api.meta import Obj
from navarch.api.yaml_reader import load
from navarch.apiserver.auth.jwt_issuers import CLAIMS, USERS, Check, From, Issuer
from navarch.apiserver.auth.outbound import trusting

_VERSIONS: Final = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


class AuthenticationError(ValueError):
    """The configuration cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class AnonymousAccess:
    """`paths`: nowhere else; None for everywhere that they are authorized."""

    enabled: bool = True
    paths: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class AuthenticationConfiguration:
    """`anonymous` None: the flag decides."""

    issuers: tuple[Issuer, ...] = ()
    anonymous: AnonymousAccess | None = None


def read(path: Path) -> AuthenticationConfiguration:
    """Raises AuthenticationError."""
    try:
        document = load(path.read_bytes()).value
    except (OSError, ValueError) as error:
        raise AuthenticationError(f"failed to load authentication configuration from file {path}: {error}") from None
    return parse(document)


def parse(document: Any) -> AuthenticationConfiguration:
    """Raises AuthenticationError."""
    if (
        not isinstance(document, dict)
        or document.get("apiVersion") not in _VERSIONS
        or document.get("kind") != "AuthenticationConfiguration"
    ):
        raise AuthenticationError("the file is no AuthenticationConfiguration of apiserver.config.k8s.io/v1")
    reader = _Reader()
    issuers = tuple(reader.issuer(f"jwt[{index}]", each) for index, each in enumerate(document.get("jwt") or []))
    urls = [issuer.url for issuer in issuers]
    for index, url in enumerate(urls):
        if url in urls[:index]:
            reader.wrong(f'jwt[{index}].issuer.url: Duplicate value: "{url}"')
    anonymous = reader.anonymous(document.get("anonymous"))
    if reader.problems:
        shown = reader.problems
        raise AuthenticationError(shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]")
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
        elif not url.startswith("https://"):
            self.wrong(f'{path}.issuer.url: Invalid value: "{url}": URL scheme must be https')
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
            if rule.get("claim"):
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
            program = self._program(f"{where}.expression", expression, environment)
            if program is not None:
                message = rule.get("message") or f"validation expression '{expression}' failed"
                found.append(Check(program, message))
        return found

    def _extra(self, path: str, stated: list[Obj]) -> tuple[tuple[str, Program], ...]:
        found = []
        for index, each in enumerate(stated):
            key, expression = str(each.get("key") or ""), each.get("valueExpression") or ""
            if not key or "/" not in key or key != key.lower():
                self.wrong(f'{path}[{index}].key: Invalid value: "{key}": must be a lower-case domain-prefixed path')
            if not expression:
                self.wrong(f"{path}[{index}].valueExpression: Required value: valueExpression is required")
                continue
            program = self._program(f"{path}[{index}].valueExpression", expression, CLAIMS)
            if program is not None:
                found.append((key, program))
        return tuple(found)

    def _program(self, path: str, expression: str, environment: Environment) -> Program | None:
        try:
            return environment.compile(expression)
        except CompileError as error:
            self.wrong(f'{path}: Invalid value: "{expression}": compilation failed: {error}')
            return None
