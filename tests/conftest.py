"""What all tests share: property tests have no deadline per example, as a busy machine says nothing about the code, and
try the same examples each time, so that a run can be repeated.  `make explore` has them try new ones, by a seed that
it prints."""

from __future__ import annotations

import gc
import os
import signal

from hypothesis import HealthCheck, settings

# A shell without job control starts its background jobs deaf to Ctrl-C, which all that tests start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("navarch", deadline=None, derandomize=True)
settings.load_profile("navarch")

if examples := os.environ.get("NAVARCH_EXPLORE"):
    # Without a database of earlier finds a seed alone says what is tried.
    settings.register_profile(
        "explore",
        deadline=None,
        database=None,
        print_blob=True,
        max_examples=int(examples),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("explore")


def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: a third of what these tests take is waiting, for servers that they started and for timers."""
    return max(len(os.sched_getaffinity(0)) * 3 // 2, 1)


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: the collector would walk them all again and again, for a third of
    the time that tests take. As the cluster's own processes have it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
