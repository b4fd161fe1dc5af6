"""Progress on stderr: a line per step, with a spinner while it lasts and its duration when done; plain lines where
stderr is no terminal. `NO_COLOR` takes the colours away, `TERM=dumb` the spinner."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import click

from navarch.world import MACHINE

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
# Without a terminal a long wait would look like a hang.
_SIGN_OF_LIFE_S = 10.0


class Step:
    """A running step; `update` changes its text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._spoken_s = MACHINE.monotonic()

    def update(self, text: str) -> None:
        self.text = text
        if not _is_lively() and MACHINE.monotonic() - self._spoken_s > _SIGN_OF_LIFE_S:
            self._spoken_s = MACHINE.monotonic()
            say(f"  {text} …" if _is_unicode() else f"  {text} ...")


@contextmanager
def step(text: str) -> Iterator[Step]:
    """Show `text` until the block ends: ✔ with the time it took, or ✘ where it raised."""
    current = Step(text)
    started_s = MACHINE.monotonic()
    done = threading.Event()
    spinner: threading.Thread | None = None
    if _is_lively():
        spinner = threading.Thread(target=_spin, args=(current, done), daemon=True)
        spinner.start()
    mark, plain, color = "✘", "failed:", "red"
    try:
        yield current
        mark, plain, color = "✔", "done:", "green"
    finally:
        done.set()
        if spinner is not None:
            spinner.join()
            _raw("\r\033[K")
        took_s = MACHINE.monotonic() - started_s
        shown = click.style(mark, fg=color) if _is_unicode() else plain
        say(f"{shown} {current.text} ({took_s:.1f} s)")


class Phases:
    """A row of steps, each of which ends as the next begins: `now("nodes (1 of 3 ready)")` goes on with the step
    `nodes`. What is in brackets tells how far it is."""

    def __init__(self) -> None:
        self._name = ""
        self._open: AbstractContextManager[Step] | None = None
        self._step: Step | None = None

    def now(self, text: str) -> None:
        name = text.partition(" (")[0]
        if name != self._name:
            self.end()
            self._name = name
            self._open = step(text)
            self._step = self._open.__enter__()
        assert self._step is not None
        self._step.update(text)

    def end(self, error: BaseException | None = None) -> None:
        if self._open is None:
            return
        opened, self._open = self._open, None
        if error is None:
            opened.__exit__(None, None, None)
        else:
            # Shows that the step failed; the error itself is on its way to the caller already.
            opened.__exit__(type(error), error, error.__traceback__)


@contextmanager
def phases() -> Iterator[Phases]:
    """A row of steps; the one that runs when the block raises is the one that failed."""
    row = Phases()
    try:
        yield row
    except BaseException as error:
        row.end(error)
        raise
    row.end()


def _is_lively() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _is_unicode() -> bool:
    return (sys.stderr.encoding or "").lower().replace("-", "") == "utf8"


def _spin(current: Step, done: threading.Event) -> None:
    frame = 0
    while not done.wait(0.08):
        _raw(f"\r\033[K{_FRAMES[frame % len(_FRAMES)] if _is_unicode() else '-'} {current.text}")
        frame += 1


def _raw(text: str) -> None:
    """Past click, which without colours would take the cursor's movements out, too."""
    sys.stderr.write(text)
    sys.stderr.flush()


def say(text: str = "") -> None:
    """A message for people, on stderr."""
    click.echo(text, err=True)
