"""Kept answers: for how long, how many, and what a change takes with it."""

from __future__ import annotations

from navarch.api.meta import Key
from navarch.node.dns.cache import ANY, AnswerCache

WEB, DB = Key("default", "web"), Key("default", "db")


def test_a_change_of_a_service_takes_its_answers_and_those_of_any_service() -> None:
    cache = AnswerCache()
    cache.put(b"web", b"1", services=[WEB])
    cache.put(b"alias", b"2", services=[DB, WEB])
    cache.put(b"db", b"3", services=[DB])
    cache.put(b"reverse", b"4", services=[ANY])

    cache.changed(WEB)

    assert [cache.get(query, 0.0) for query in (b"web", b"alias", b"db", b"reverse")] == [None, None, b"3", None]


def test_an_answer_is_good_until_its_time_is_over() -> None:
    cache = AnswerCache()
    cache.put(b"out", b"1", expires_s=5.0)

    assert cache.get(b"out", 4.9) == b"1"
    assert cache.get(b"out", 5.0) is None


def test_the_oldest_answer_makes_room() -> None:
    cache = AnswerCache(size=2)
    for number in range(4):
        cache.put(b"%d" % number, b"x", services=[Key("default", f"s{number}")])

    assert [cache.get(b"%d" % number, 0.0) for number in range(4)] == [None, None, b"x", b"x"]
    assert len(cache) == 2


def test_an_answer_that_is_replaced_depends_on_what_the_new_one_does() -> None:
    cache = AnswerCache()
    cache.put(b"name", b"old", services=[WEB])
    cache.put(b"name", b"new", services=[DB])

    cache.changed(WEB)
    assert cache.get(b"name", 0.0) == b"new"
    cache.changed(DB)
    assert cache.get(b"name", 0.0) is None
