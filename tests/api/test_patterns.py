"""Patterns are Go's, in what they find, in how they are refused, and in the time that they take."""

from __future__ import annotations

import pytest

from navarch.api.patterns import problem_of, search_of


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^a+$", "aaa", True),
        ("^a+$", "aaa\n", False),
        ("b", "abc", True),
        (r"^\d$", "٣", False),
        (r"^\pL+$", "grüße", True),
        (r"(?i)^HALLO$", "hallo", True),
        ("^.$", "ü", True),
        (r"^\w$", "ü", False),
        (r"^[[:alpha:]]+$", "abc", True),
        ("", "", True),
    ],
)
def test_a_pattern_finds_what_go_finds(pattern: str, text: str, *, found: bool) -> None:
    assert search_of(pattern)(text) is found


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("a\\", "trailing backslash at end of expression: ``"),
    ],
)
def test_what_is_no_pattern_is_refused_in_gos_words(pattern: str, problem: str) -> None:
    assert problem_of(pattern) == f"error parsing regexp: {problem}"
    with pytest.raises(ValueError, match="error parsing regexp"):
        search_of(pattern)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "(.*a){20}", "(x+x+)+y"])
def test_no_text_makes_a_pattern_slow(pattern: str) -> None:
    # With backtracking none of these would end before the universe does.
    search = search_of(pattern)

    assert not search("a" * 19 + "x" * 200_000)
