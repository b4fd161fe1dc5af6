"""Names of signers, and of the trust bundles that belong to one: what is wrong with them.

A signer's name is a domain and a path (`example.com/my-signer`); a bundle of its is named `example.com:my-signer:…`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from navarch.api.errors import FieldError, invalid_value, required, too_long
from navarch.api.validation import Problems, dns_label_problems, dns_subdomain_problems

_MAX_DOMAIN: Final = 253
# A domain, a namespace and a resource's name in it, with a slash and a dot between.
_MAX_NAME: Final = 253 + 63 + 253 + 2
_PATH_FORM: Final = "must be a fully qualified domain and path of the form 'example.com/signer-name'"


def is_kubernetes_signer(name: str) -> bool:
    domain = name.partition("/")[0]
    return domain == "kubernetes.io" or domain.endswith(".kubernetes.io")


def validate_signer_name(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path)
        return
    segments = name.split("/")
    if len(segments) != 2:
        yield invalid_value(path, name, _PATH_FORM)
        return
    domain, rest = segments
    if len(domain) > _MAX_DOMAIN:
        yield too_long(path, _MAX_DOMAIN)
    yield from _first_bad_label(domain, dns_label_problems, path)
    if "." not in domain:
        yield invalid_value(path, domain, "should be a domain with at least two segments separated by dots")
    yield from _first_bad_label(rest, dns_subdomain_problems, path)
    if len(name) > _MAX_NAME:
        yield too_long(path, _MAX_NAME)


def _first_bad_label(segment: str, problems: Callable[[str], Problems], path: str) -> Iterator[FieldError]:
    for label in segment.split("."):
        if found := problems(label):
            for problem in found:
                yield invalid_value(path, segment, f'validating label "{label}": {problem}')
            return


def trust_bundle_name_problems(name: str, signer: str | None = None) -> Problems:
    """What is wrong with a ClusterTrustBundle's name: of that signer's bundle; without `signer`, of the one that the
    name itself tells."""
    if signer is None:
        *said, _ = name.rsplit(":", 1) if ":" in name else ("", "")
        signer = said[0].replace(":", "/") if said and said[0] else ""
    if not signer:
        if ":" in name:
            return ('ClusterTrustBundle without signer name must not have ":" in its name',)
        return dns_subdomain_problems(name)
    prefix = signer.replace("/", ":") + ":"
    if not name.startswith(prefix):
        return (f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}",)
    return dns_subdomain_problems(name.removeprefix(prefix))
