"""Sets of CPUs as the kernel writes them."""

from __future__ import annotations

import pytest

from navarch.node.resources.cpusets import parse, text_of


@pytest.mark.parametrize("text", ["", "0", "0-3", "0,2-4,9", "1-2,4-5"])
def test_what_is_read_is_written_the_same(text: str) -> None:
    assert text_of(parse(text)) == text


@pytest.mark.parametrize("text", ["a", "3-1", "1-", "-1", "1,,2"])
def test_what_is_no_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"strconv\.Atoi|invalid range"):
        parse(text)
