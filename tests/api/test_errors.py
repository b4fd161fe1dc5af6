"""Field errors: the values that they show."""

from __future__ import annotations

from navarch.api.errors import immutable, invalid_value


def test_a_selector_is_shown_with_what_go_writes_of_its_requirements() -> None:
    selector = {"matchExpressions": [{"values": ["b"], "key": "a"}], "matchLabels": {"z": "1", "a": "2"}}

    error = invalid_value("spec.selector", selector, "invalid label selector")

    assert error.message() == (
        'Invalid value: {"matchLabels":{"a":"2","z":"1"},"matchExpressions":'
        '[{"key":"a","operator":"","values":["b"]}]}: invalid label selector'
    )


def test_a_whole_requirement_is_shown_as_it_is() -> None:
    selector = {"matchExpressions": [{"operator": "Exists", "key": "a"}]}

    assert '{"matchExpressions":[{"key":"a","operator":"Exists"}]}' in immutable("spec.selector", selector).message()
