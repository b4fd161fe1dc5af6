"""Headers that are the same in thousands of answers, with the lines that they are on the wire.

In: headers of ours, without line breaks.  Out: the same with one more, whose lines need not be put together again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class Headers(dict[str, str]):
    """Not to be changed once it is made."""

    __slots__ = ("lines",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self.lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def completed(self, name: str, value: str) -> Completed:
        """These, and one that each answer has for itself."""
        return Completed(self, name, value)


class Completed(Mapping[str, str]):
    """`usual`, and one more that is not among them."""

    __slots__ = ("name", "usual", "value")

    def __init__(self, usual: Headers, name: str, value: str) -> None:
        self.usual = usual
        self.name = name
        self.value = value

    @property
    def lines(self) -> str:
        return f"{self.usual.lines}{self.name}: {self.value}\r\n"

    def __getitem__(self, name: str) -> str:
        return self.value if name == self.name else self.usual[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.usual
        yield self.name

    def __len__(self) -> int:
        return len(self.usual) + 1
