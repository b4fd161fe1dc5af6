"""What expressions evaluate to, and how they fail: values, operators, macros, optionals, and Kubernetes' libraries."""

from __future__ import annotations

import re
from typing import Any

import pytest

from navarch.api.cel.environment import Environment
from navarch.api.cel.errors import CelError, CompileError
from navarch.api.cel.types import DYN, INT, STRING, Type, list_of, map_of
from navarch.api.cel.values import Message, Optional

VARIABLES: dict[str, tuple[Type, Any]] = {
    "o": (DYN, {"a": 1, "n": None, "l": [1, True], "s": "x", "f": 1.5, "m": {"k": "v"}}),
    "numbers": (list_of(INT), [3, 1, 2]),
    "words": (list_of(STRING), ["b", "a"]),
    "table": (map_of(STRING, INT), {"one": 1, "two": 2}),
    "text": (STRING, "hello"),
}
ENVIRONMENT = Environment({name: kind for name, (kind, _) in VARIABLES.items()})
VALUES = [value for _, value in VARIABLES.values()]


def value_of(expression: str) -> Any:
    value, _ = ENVIRONMENT.compile(expression).evaluate(VALUES)
    if isinstance(value, Optional):
        return ("some", value.value) if value.present else "none"
    return value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / -2", -3),
        ("-7 % 3", -1),
        ("1.0 / 0.0 > 1e300", True),
        ("2u * 3u", 6),
        ("-(-1)", 1),
        ("'a' + 'b'", "ab"),
        ("b'a' + b'\\xff'", b"a\xff"),
        ("r'\\d' + '\\u00e9\\101\\n'", "\\déA\n"),
        ('"""a\n"b"""', 'a\n"b'),
        ("[1] + [2]", [1, 2]),
        ("0x10", 16),
        ("true ? 'yes' : 'no'", "yes"),
        ("1 < 1.5 && 2u > 1", True),
        ("dyn(1) == 1.0", True),
        ("dyn(1) == true", False),
        ("o.l == dyn([dyn(1), dyn(1)])", False),
        ("o.l[1] == true", True),
        ("o.n == null", True),
        ("'v' == o.m.k && o.m['k'] == 'v'", True),
        ("2 in numbers", True),
        ("'one' in table", True),
        ("type(o.a) == int", True),
        ("type(o.f) == double && type(o.n) == null_type && type(o.l) == list", True),
        ("{'a': 1}.a", 1),
        ("text.size() + size(numbers)", 8),
        ("int('12') + int(3.9) + int(2u)", 17),
        ("double('1e3')", 1000.0),
        ("string(1.0) + string(true) + string(1e21)", "1true1e+21"),
        ("string(duration('90m')) + string(timestamp('2020-01-01T00:00:00.5Z'))", "5400s2020-01-01T00:00:00.5Z"),
        ("bytes('é').size()", 2),
        ("timestamp('2020-02-03T23:30:00Z').getDate('+02:00')", 4),
        ("timestamp('2020-02-03T04:05:06Z') - timestamp('2020-02-03T04:05:05Z') == duration('1s')", True),
        ("duration('1h30m').getMinutes()", 90),
        ("timestamp('2020-02-03T04:05:06Z').getDayOfWeek()", 1),
    ],
)
def test_an_expression_has_its_value(expression: str, value: Any) -> None:
    found = value_of(expression)

    assert found == value
    assert type(found) is type(value) or isinstance(found, type(value))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("numbers.all(n, n > 0)", True),
        ("numbers.exists(n, n > 2)", True),
        ("numbers.exists_one(n, n > 2)", True),
        ("numbers.map(n, n * 2)", [6, 2, 4]),
        ("numbers.map(n, n > 1, n * 2)", [6, 4]),
        ("numbers.filter(n, n != 1)", [3, 2]),
        ("table.all(k, k.size() == 3)", True),
        ("table.map(k, table[k])", [1, 2]),
        ("table.all(k, v, k == 'two' || v == 1)", True),
        ("table.exists(k, v, v == 2)", True),
        ("numbers.existsOne(i, v, i == v)", False),
        ("numbers.transformList(i, v, i + v)", [3, 2, 4]),
        ("numbers.transformList(i, v, i > 0, i + v)", [2, 4]),
        ("table.transformMap(k, v, v * 10)", {"one": 10, "two": 20}),
        ("table.transformMap(k, v, v > 1, v)", {"two": 2}),
        ("table.transformMapEntry(k, v, {v: k})", {1: "one", 2: "two"}),
        ("numbers.map(n, numbers.filter(n, n > 2))", [[3], [3], [3]]),
        ("[].all(x, false)", True),
        # A decision of one item outweighs the errors of others.
        ("[0, 1].exists(n, 10 / n == 10)", True),
        ("[0, 2].all(n, 10 / n == 10)", False),
    ],
)
def test_macros(expression: str, value: Any) -> None:
    assert value_of(expression) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("o.?a", ("some", 1)),
        ("o.?missing", "none"),
        ("o.?m.?k.orValue('w')", "v"),
        ("o.?m.missing.orValue('w')", "w"),
        ("o.m[?'k'].hasValue()", True),
        ("numbers[?5].hasValue()", False),
        ("optional.none().or(optional.of(1)).value()", 1),
        ("optional.ofNonZeroValue(0)", "none"),
        ("optional.of(1).optMap(x, x + 1)", ("some", 2)),
        ("optional.none().optMap(x, x + 1)", "none"),
        ("optional.of(1).optFlatMap(x, optional.none())", "none"),
        ("[?o.?a, ?o.?missing]", [1]),
        ("{?'a': o.?a, ?'b': o.?missing}", {"a": 1}),
        ("has(o.a) && !has(o.missing)", True),
    ],
)
def test_optional_values(expression: str, value: Any) -> None:
    assert value_of(expression) == value


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("o.missing", "no such key: missing"),
        ("o.m.k.x", "no such overload"),
        ("o.s.y.z", "no such overload"),
        ("numbers[5]", "index out of bounds: 5"),
        ("table['three']", "no such key: three"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808 - 1", "integer overflow"),
        ("1u - 2u", "unsigned integer overflow"),
        ("int(1e20)", "integer overflow"),
        ("o.a + 'x'", "no such overload"),
        ("o.s < 1", "no such overload"),
        ("o.s ? 1 : 2", "no such overload"),
        ("o.a && true", "no such overload"),
        ("int(text)", 'strconv.ParseInt: parsing "hello": invalid syntax'),
        ("uint('-1')", 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("duration(text)", 'time: invalid duration "hello"'),
        ("timestamp(text)", 'parsing time "hello" as "2006-01-02T15:04:05Z07:00": cannot parse "hello" as "2006"'),
        ("text.matches('h' + '(')", "error parsing regexp: missing closing ): `h(`"),
        ("optional.none().value()", "optional.none() dereference"),
        ("[1].filter(x, false).min()", "min called on empty list"),
        ("text.substring(9)", "index out of range: 9"),
        ("quantity(text)", "quantities must match the regular expression "
         "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("ip('1.2')", 'IP Address "1.2" parse error during conversion from string: ParseAddr("1.2"): '
         "IPv4 address too short"),
        ("ip('::ffff:1.2.3.4')", 'IPv4-mapped IPv6 address "::ffff:1.2.3.4" is not allowed'),
        ("url('x y')", 'URL parse error during conversion from string: parse "x y": invalid URI for request'),
        ("semver('1.2')", "No Major.Minor.Patch elements found"),
        ("size(o.a) == 1", "no such overload"),
        ("o.s.add(o.s) == o.s", "no such overload: add(string, string)"),
    ],
)  # fmt: skip
def test_an_expression_fails_in_the_words_of_kubernetes(expression: str, error: str) -> None:
    with pytest.raises(CelError) as raised:
        value_of(expression)

    assert raised.value.text == error


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("numbers.sum() + numbers.max() + numbers.min()", 10),
        ("numbers.isSorted() || ['a', 'b'].isSorted()", True),
        ("words.indexOf('a') + [1, 2, 1].lastIndexOf(1)", 3),
        ("'abc 123 de 45'.find('[0-9]+')", "123"),
        ("'abc 123 de 45'.findAll('[0-9]+')", ["123", "45"]),
        ("'abc 123 de 45'.findAll('[0-9]+', 1)", ["123"]),
        ("text.matches('^h.*o$')", True),
        ("'a,b,c'.split(',', 2)", ["a", "b,c"]),
        ("'abc'.split('')", ["a", "b", "c"]),
        ("['a', 'b'].join('-')", "a-b"),
        ("'Hello'.lowerAscii() + 'é'.upperAscii()", "helloé"),
        ("' a '.trim() + 'abcabc'.replace('b', 'x', 1)", "aaxcabc"),
        ("text.indexOf('l') + text.lastIndexOf('l') + text.indexOf('z')", 4),
        ("text.charAt(1) + text.substring(3)", "elo"),
        ("'%s is %d, %.2f, %x, %e'.format([dyn('a'), dyn(5), dyn(1.5), dyn(255), dyn(1.0)])",
         "a is 5, 1.50, ff, 1.000000e+00"),
        ("'%s'.format([[1, 2]])", "[1, 2]"),
        ("strings.quote('a\"b')", '"a\\"b"'),
        ("sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", True),
        ("url('https://user@example.com:80/a b?k=1&k=2&l').getHost()", "example.com:80"),
        ("url('https://example.com:80/a').getPort() + url('https://[::1]:80/').getHostname()", "80::1"),
        ("url('https://example.com/a b').getEscapedPath()", "/a%20b"),
        ("url('https://example.com/?k=1&k=2&l').getQuery()", {"k": ["1", "2"], "l": [""]}),
        ("isURL('/a') && !isURL('a b')", True),
        ("quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('200M').compareTo(quantity('0.2G')) == 0", True),
        ("quantity('50k').add(20).sub(quantity('100k')).sub(-50000) == quantity('20')", True),
        ("quantity('1.5').isInteger() || !isQuantity('1x')", True),
        ("quantity('50k').asInteger() + sign(quantity('-1'))", 49999),
        ("isIP('::1') && !isIP('fe80::1%eth0') && ip('::1').family() == 6 && ip('127.0.0.1').isLoopback()", True),
        ("ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')", True),
        ("['1.2.3.4', '1.2.4.4'].map(x, cidr('1.2.3.0/24').containsIP(x))", [True, False]),
        ("cidr('192.168.0.0/24').containsIP(ip('192.168.0.1'))", True),
        ("cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24')", True),
        ("cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24') && cidr('10.0.0.0/8').prefixLength() == 8", True),
        ("string(cidr('10.0.0.0/8')) + string(ip('::1'))", "10.0.0.0/8::1"),
        ("!isCIDR('10.0.0.0/33')", True),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", True),
        ("semver('1.0.0-a.2').compareTo(semver('1.0.0-a.10'))", -1),
        ("semver('v1.2', true) == semver('1.2.0') && isSemver('1.2.3') && !isSemver('v1.2.3')", True),
        ("format.dns1123Label().validate('my-label').hasValue()", False),
        ("format.named('uuid').value().validate('x').value()", ["does not match the UUID format"]),
        ("format.named('none').hasValue()", False),
        ("format.dns1123LabelPrefix().validate('my-').hasValue()", False),
    ],
)  # fmt: skip
def test_libraries(expression: str, value: Any) -> None:
    assert value_of(expression) == value


def test_an_object_is_made_of_fields() -> None:
    from navarch.api.cel.types import object_type

    kind = object_type("Object", {}, any_field=lambda name: DYN)
    environment = Environment({}, lambda name: kind if name == "Object" else None)

    value, _ = environment.compile("Object{labels: {'a': 'b'}, ?none: optional.none()}").evaluate(())

    assert isinstance(value, Message)
    assert value == {"labels": {"a": "b"}}
    assert value.type_name == "Object"


def test_only_expressions_that_make_patches_can_escape_keys() -> None:
    program = Environment({}, patching=True).compile("jsonpatch.escapeKey('a/b~c')")

    assert program.evaluate(())[0] == "a~1b~0c"
    with pytest.raises(CompileError, match="undeclared reference to 'jsonpatch'"):
        Environment({}).compile("jsonpatch.escapeKey('a/b~c')")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("lists.range(4) + lists.range(0)", [0, 1, 2, 3]),
        ("numbers.reverse()", [2, 1, 3]),
        ("[1, 2, 3, 4].slice(1, 3) + [1].slice(1, 1)", [2, 3]),
        ("[[1], [2, 3], []].flatten()", [1, 2, 3]),
        ("dyn([1, 2]).flatten()", [1, 2]),
        ("[[[1]], [[2]]].flatten(2)", [1, 2]),
        ("numbers.sort()", [1, 2, 3]),
        ("['é', 'b', 'a'].sort()", ["a", "b", "é"]),
        ("[-3, 1, -5, -2, 4].map(e, e * 2).sortBy(e, -(e * e))", [-10, 8, -6, -4, 2]),
        ("[{'f': 'lo'}, {'f': 'hi'}].sortBy(m, m.f).map(m, m.f)", ["hi", "lo"]),
        ("[[3, 1], [2]].sortBy(l, l.sortBy(x, x)[0])", [[3, 1], [2]]),
        ("['c', 'a', 'a', 'b', 'c'].distinct()", ["c", "a", "b"]),
        ("[dyn(1), dyn(1.0), dyn([1]), dyn([1])].distinct()", [1, [1]]),
    ],
)
def test_lists_are_cut_joined_and_sorted(expression: str, value: Any) -> None:
    assert value_of(expression) == value


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("[1].slice(-1, 1)", "cannot slice(-1, 1), negative indexes not supported"),
        ("[1].slice(1, 0)", "cannot slice(1, 0), start index must be less than or equal to end index"),
        ("[1].slice(0, 10)", "cannot slice(0, 10), list is length 1"),
        ("[[1]].flatten(-1)", "level must be non-negative"),
        ("dyn([dyn('d'), dyn(3)]).sort()", "list elements must have the same type"),
        ("dyn([[1]]).sort()", "list elements must be comparable"),
        ("lists.range(100000000)", "operation cancelled: actual cost limit exceeded"),
        ("quantity('1.5Gi').asInteger()", "cannot convert value to integer"),
        (
            "ip('2001:db8:::68')",
            'ParseAddr("2001:db8:::68"): each colon-separated field must have at least one digit (at ":68")',
        ),
        ("ip('1:2')", 'ParseAddr("1:2"): address string too short'),
        ("ip('1:2:')", 'ParseAddr("1:2:"): colon must be followed by more characters (at ":")'),
        ("ip('::1::')", 'ParseAddr("::1::"): multiple :: in address (at ":")'),
        ("ip('1:2:3:4:5:6:7:8:9')", 'ParseAddr("1:2:3:4:5:6:7:8:9"): trailing garbage after address (at "9")'),
        ("ip('1:2:3:4::5:6:7:8')", 'ParseAddr("1:2:3:4::5:6:7:8"): the :: must expand to at least one field of zeros'),
        ("ip('12345::')", 'ParseAddr("12345::"): each group must have 4 or less digits (at "12345::")'),
        ("ip('1:g::')", 'ParseAddr("1:g::"): each colon-separated field must have at least one digit (at "g::")'),
        ("ip('1g::')", 'ParseAddr("1g::"): unexpected character, want colon (at "g::")'),
        ("ip('1:1.2.3.4')", 'embedded IPv4 address must replace the final 2 fields of the address (at "1.2.3.4")'),
        ("ip('::1.2.3')", 'ParseAddr("::1.2.3"): IPv4 address too short'),
        ("ip('::1%')", 'ParseAddr("::1%"): zone must be a non-empty string'),
    ],
)
def test_what_the_libraries_refuse_is_told_as_kubernetes_tells_it(expression: str, problem: str) -> None:
    with pytest.raises(CelError) as raised:
        value_of(expression)

    assert raised.value.text.endswith(problem)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("50k", True),
        ("50.703k", True),
        ("0", True),
        ("1Gi", True),
        ("1e3", True),
        ("-2", True),
        ("1.5Gi", False),
        ("50.0", False),
        ("1000m", False),
        ("9999999999999999999999999999999999999G", False),
        ("10E", False),
        ("1.0000000000k", False),
    ],
)
def test_a_quantity_is_an_integer_where_kubernetes_holds_it_as_one(text: str, whole: bool) -> None:
    assert value_of(f"quantity('{text}').isInteger()") is whole


def test_sums_of_integers_are_integers_until_one_is_none() -> None:
    assert value_of("quantity('50k').add(20).sub(quantity('100k')).sub(-50000).asInteger()") == 20
    assert value_of("quantity('1k').add(quantity('1.5Ki')).isInteger()") is False
    assert value_of("quantity('9E').add(quantity('9E')).isInteger()") is False
    assert value_of("quantity('1k').sub(quantity('500m')).isInteger()") is False


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("[[1]].sort()", "found no matching overload for 'sort' applied to 'list(list(int)).()'"),
        (
            "[1].sortBy(e, [e])",
            "found no matching overload for '@sortByAssociatedKeys' applied to 'list(int).(list(list(int)))'",
        ),
        (
            "'abc'.sortBy(e, e)",
            "sortBy can only be applied to a list, identifier, comprehension, call or select expression",
        ),
    ],
)
def test_what_cannot_be_sorted_does_not_compile(expression: str, problem: str) -> None:
    with pytest.raises(CompileError, match=re.escape(problem)):
        ENVIRONMENT.compile(expression)
