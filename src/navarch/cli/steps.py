"""Progress on stderr: a line per step with a spinner while it lasts and its duration when done; plain lines where
stderr is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Step:
    """A running step; `update` changes its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def update(self, text: str) -> None:
        self.text = text


@contextmanager
def step(text: str) -> Iterator[Step]:
    """Show `text` until the block ends: ✔ with the time it took, or ✘ where it raised."""
    current = Step(text)
    started_s = time.monotonic()
    done = threading.Event()
    spinner: threading.Thread | None = None
    if sys.stderr.isatty():
        spinner = threading.Thread(target=_spin, args=(current, done), daemon=True)
        spinner.start()
    mark, color = "✘", "red"
    try:
        yield current
        mark, color = "✔", "green"
    finally:
        done.set()
        if spinner is not None:
            spinner.join()
            click.echo("\r\033[K", nl=False, err=True)
        took_s = time.monotonic() - started_s
        click.echo(f"{click.style(mark, fg=color)} {current.text} ({took_s:.1f} s)", err=True)


def _spin(current: Step, done: threading.Event) -> None:
    frame = 0
    while not done.wait(0.08):
        click.echo(f"\r\033[K{_FRAMES[frame % len(_FRAMES)]} {current.text}", nl=False, err=True)
        frame += 1


def say(text: str = "") -> None:
    """A message for people, on stderr."""
    click.echo(text, err=True)
