"""What an answer says of itself goes out as it is held, however it was put together."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from navarch.apiserver.answer_heads import head_of
from navarch.apiserver.headers import Headers
from navarch.client.transport import Response

NAMES = st.text("ABCDefgh-", min_size=1)
TEXTS = st.text("abc 0123-/", max_size=20)


@given(st.dictionaries(NAMES, TEXTS, max_size=3), NAMES, TEXTS)
def test_lines_that_were_put_together_before_are_those_of_the_headers(
    usual: dict[str, str], name: str, value: str
) -> None:
    assume(name not in usual)
    known = Headers(usual)

    whole = known.completed(name, value)

    assert whole == {**usual, name: value}
    assert list(whole) == [*usual, name]
    assert known == usual
    for headers in (known, whole):
        date = b"\r\nDate: "
        slow, quick = (head_of(Response(200, b"", each), 7) for each in (dict(headers), headers))
        before, _, after = slow.partition(date)
        assert (before, after[29:]) == (quick.partition(date)[0], quick.partition(date)[2][29:])
