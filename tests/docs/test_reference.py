"""The reference of the command line says what `--help` says."""

from __future__ import annotations

from tests.docs.reference import TARGET, text


def test_the_reference_is_what_help_prints() -> None:
    assert TARGET.read_text() == text(), "run: python -m tests.docs.reference"
