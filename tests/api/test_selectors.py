"""Selectors: what they match, and how a text that is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import selectors
from navarch.api.errors import StatusError
from navarch.api.selectors import FieldTerm, from_map, label_selector_of, parse_field_selector, parse_label_selector
from tests.growth import cpu_s

NAMES = st.sampled_from(["app", "tier", "example.com/role", "in", "notin"])
VALUES = st.sampled_from(["", "a", "b", "web-1", "in", "7"])
LABELS = st.dictionaries(NAMES, VALUES, max_size=4)


@pytest.mark.parametrize(
    ("text", "labels", "matched"),
    [
        ("", {}, True),
        ("app=web", {"app": "web", "x": "y"}, True),
        ("app=web", {}, False),
        ("app==web", {"app": "web"}, True),
        ("app!=web", {}, True),
        ("app!=web", {"app": "web"}, False),
        ("app in (a, b)", {"app": "b"}, True),
        ("app in (a,)", {"app": ""}, True),
        ("app notin (a,b)", {"app": "c"}, True),
        ("app notin (a,b)", {}, True),
        ("app", {"app": ""}, True),
        ("!app", {"app": ""}, False),
        ("n>3", {"n": "10"}, True),
        ("n>3", {"n": "ten"}, False),
        ("n<3", {}, False),
        ("a=1,b=2", {"a": "1"}, False),
        ("app=", {"app": ""}, True),
        ("in in (in)", {"in": "in"}, True),
    ],
)
def test_a_label_selector_matches(text: str, labels: dict[str, str], matched: bool) -> None:
    assert parse_label_selector(text).matches(labels) is matched


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        (
            "x>y",
            'unable to parse requirement: values[0]: Invalid value: "y": '
            "for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ],
)
def test_a_text_that_is_no_selector_is_refused(text: str, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        parse_label_selector(text)
    assert (caught.value.code, caught.value.message) == (400, message)


def test_a_selector_object_combines_labels_and_expressions() -> None:
    selector = label_selector_of(
        {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}]}
    )
    assert selector.matches({"app": "web"})
    assert not selector.matches({"app": "web", "canary": ""})


def test_no_selector_matches_nothing_and_an_empty_one_everything() -> None:
    assert not label_selector_of(None).matches({"a": "b"})
    assert label_selector_of({}).matches({"a": "b"})
    assert from_map({}).matches({})


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(StatusError, match='"Like" is not a valid label selector operator'):
        label_selector_of({"matchExpressions": [{"key": "a", "operator": "Like"}]})


@given(LABELS, LABELS)
def test_a_map_selects_exactly_its_supersets(wanted: dict[str, str], labels: dict[str, str]) -> None:
    assert from_map(wanted).matches(labels) is (wanted.items() <= labels.items())


SETS = st.lists(VALUES, min_size=1).filter(lambda values: values != [""])  # "()" is an empty set, which is refused
REQUIREMENTS = st.one_of(
    st.builds(lambda key, values: f"{key} in ({','.join(values)})", NAMES, SETS),
    st.builds(lambda key, values: f"{key} notin ({','.join(values)})", NAMES, SETS),
    st.builds(lambda key, value: f"{key}={value}", NAMES, VALUES),
    st.builds(lambda key, value: f"{key} != {value}", NAMES, VALUES),
    NAMES,
    NAMES.map(lambda key: f"!{key}"),
)


@given(st.lists(REQUIREMENTS, max_size=8), LABELS)
def test_text_and_selector_say_the_same(terms: list[str], labels: dict[str, str]) -> None:
    selector = parse_label_selector(",".join(terms))
    assert selector.matches(labels) is all(parse_label_selector(term).matches(labels) for term in terms)
    assert parse_label_selector(str(selector)) == selector


@given(st.text(alphabet="ab=!(),>< in", max_size=12))
def test_any_text_is_parsed_or_refused_with_400(text: str) -> None:
    for parse in (parse_label_selector, parse_field_selector):
        code = 400
        try:
            parse(text)
        except StatusError as error:
            code = error.code
        assert code == 400


def test_a_field_selector_compares_text() -> None:
    selector = parse_field_selector("metadata.name=a,status.phase!=Running")
    assert selector.terms == (FieldTerm("metadata.name", "a"), FieldTerm("status.phase", "Running", False))
    assert selector.matches({"metadata.name": "a", "status.phase": "Pending"}.__getitem__)
    assert not selector.matches({"metadata.name": "a", "status.phase": "Running"}.__getitem__)
    assert selector.required("metadata.name") == "a"


@given(st.text(alphabet="a,=\\b", max_size=8))
def test_escaped_values_survive(value: str) -> None:
    selector = selectors.FieldSelector((FieldTerm("f", value),))
    assert parse_field_selector(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",".join(f"k{n}" for n in range(1001)), "more than 1000 requirements"),
        (",".join(["k"] * 60_000), "more than 1000 requirements"),
        (f"k in ({','.join(f'v{n}' for n in range(5001))})", "more than 5000 values"),
        (",".join(f"k{n} in ({','.join(f'v{v}' for v in range(1000))})" for n in range(6)), "more than 5000 values"),
        ("k=" + "v" * 200_000, "longer than 131072 characters"),
    ],
)
def test_a_label_selector_is_bounded(text: str, why: str) -> None:
    with pytest.raises(StatusError, match=why) as refused:
        parse_label_selector(text)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",".join(f"metadata.name!=v{n}" for n in range(1001)), "more than 1000 requirements"),
        ("metadata.name=" + "v" * 200_000, "longer than 131072 characters"),
    ],
)
def test_a_field_selector_is_bounded(text: str, why: str) -> None:
    with pytest.raises(StatusError, match=why) as refused:
        parse_field_selector(text)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    "terms", ["k{}!=v", "!k{}", "a!=v{}", "a notin (v{},x)", "a>{}", "a<{}00000", "k{}", "k{}=v"], ids=str
)
def test_what_a_long_label_selector_asks_of_an_object_takes_no_longer_with_its_length(terms: str) -> None:
    selector = parse_label_selector(",".join(terms.format(n) for n in range(1, 1001)))

    def match() -> None:
        for _ in range(10_000):
            selector.matches({"a": "5000", "b": "c"})

    assert cpu_s(match, enough_s=1) < 1


def test_a_field_of_an_object_is_read_once_however_often_a_selector_names_it() -> None:
    selector = parse_field_selector(",".join(f"metadata.name!=v{n}" for n in range(1000)))
    read: list[str] = []

    def get(field: str) -> str:
        read.append(field)
        return "a"

    assert selector.matches(get)
    assert read == ["metadata.name"]
    assert not selector.matches({"metadata.name": "v7"}.__getitem__)
    assert not parse_field_selector("metadata.name=a,metadata.name=b").matches(get)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a in (b,=)", "unable to parse requirement: found '=', expected: ',', or identifier"),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a in (-b, -c)", 'unable to parse requirement: [values[0][a]: Invalid value: "-b": '),
    ],
)
def test_all_that_is_wrong_with_a_requirement_is_said(text: str, message: str) -> None:
    with pytest.raises(StatusError) as refused:
        parse_label_selector(text)

    assert refused.value.message.startswith(message)


def test_what_is_wrong_with_field_selectors_is_found_in_their_order() -> None:
    with pytest.raises(StatusError) as refused:
        parse_field_selector("z=a=b,b")
    assert refused.value.message == "invalid selector: 'z=a=b,b'; can't understand 'b'"
    with pytest.raises(StatusError) as refused:
        parse_field_selector("z=a=b")
    assert refused.value.message == "invalid field selector: unescaped character in value: 61"
