"""Headers that are the same in thousands of answers, with the lines that they are on the wire.

In: headers of ours, without line breaks.  Out: the same with one more, whose lines need not be put together again.
"""

from __future__ import annotations

from collections.abc import Mapping


class Headers(dict[str, str]):
    """Not to be changed once it is made."""

    __slots__ = ("lines",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self.lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def completed(self, name: str, value: str) -> Headers:
        """These, and one that each answer has for itself."""
        more = Headers.__new__(Headers)
        more.update(self)
        more[name] = value
        more.lines = f"{self.lines}{name}: {value}\r\n"
        return more
