"""TokenReview: what a request for a review must say. The answer comes from the API server's authenticators."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError, required
from navarch.api.meta import Obj
from navarch.kinds.base import Strategy
from navarch.kinds.strategies import strategy


@strategy("authentication.k8s.io", "TokenReview")
class TokenReviewStrategy(Strategy):
    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if not (obj.get("spec") or {}).get("token"):
            yield required("spec.token")
