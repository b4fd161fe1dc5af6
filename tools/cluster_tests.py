"""Runs the tests that drive clusters: simulated nodes (and networks without any) beside real containers, then what must
be alone.

Such tests wait more than they compute, so that two lanes on two cores take two thirds of the time of one. Clusters in
two lanes would take each other's ports; so the lane of simulated nodes, which need nothing but loopback, has a network
namespace of its own, in which tests can make further ones. That needs root and `unshare`; without them everything runs
one after the other.

    python tools/cluster_tests.py [arguments for pytest]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Final

SIMULATED: Final = "(e2e or namespaces) and not containers and not alone"
CONTAINERS: Final = "containers and not alone"
ALONE: Final = "alone"
_INSIDE: Final = "--in-own-network"
_NOTHING_CHOSEN: Final = 5  # pytest's exit code where no test was selected
_PYTEST: Final = (sys.executable, "-m", "pytest", "-q")
# Of a range that is for documentation (RFC 5737): nothing else on the machine has it.
_ADDRESS: Final = "198.51.100.2"
_GATEWAY: Final = "198.51.100.1"
_UNSHARE: Final = ("unshare", "--net")


def can_separate() -> bool:
    """Whether this process may make network namespaces."""
    if os.geteuid() != 0 or shutil.which(_UNSHARE[0]) is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def pytest(marks: str, arguments: Sequence[str]) -> list[str]:
    return [*_PYTEST, *arguments, "-m", marks]


def ordered(arguments: Sequence[str]) -> list[int]:
    """Everything in one lane; the exit codes."""
    return [subprocess.run(pytest("e2e or containers or namespaces or alone", arguments), check=False).returncode]


def side_by_side(arguments: Sequence[str], report: IO[bytes]) -> list[int]:
    """Two lanes at once, then the rest; the exit codes. What the lane in the background says goes to `report`."""
    inside = [*_UNSHARE, sys.executable, __file__, _INSIDE, *pytest(SIMULATED, arguments)]
    beside = subprocess.Popen(inside, stdout=report, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        codes = [subprocess.run(pytest(CONTAINERS, arguments), check=False).returncode]
        codes.append(beside.wait())
    finally:
        # Also on Ctrl-C: its clusters are taken down by pytest, which needs the time.
        beside.wait()
    report.seek(0)
    print(f"\nBeside these ran: {SIMULATED}", flush=True)
    shutil.copyfileobj(report, sys.stdout.buffer)
    sys.stdout.flush()
    return [*codes, subprocess.run(pytest(ALONE, arguments), check=False).returncode]


def enter(command: Sequence[str]) -> None:
    """Becomes the command, in a network namespace that has just been made: its loopback is down at first, and it has
    no address that is not loopback's, as machines have."""
    from pyroute2 import IPRoute

    with IPRoute() as routes:
        routes.link("set", index=1, state="up")
        routes.link("add", ifname="lan0", kind="veth", peer={"ifname": "lan1"})
        for name in ("lan0", "lan1"):
            routes.link("set", index=routes.link_lookup(ifname=name)[0], state="up")
        own = routes.link_lookup(ifname="lan0")[0]
        routes.addr("add", index=own, address=_ADDRESS, prefixlen=24)
        routes.route("add", dst="default", gateway=_GATEWAY, oif=own)
    os.execv(command[0], list(command))


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == [_INSIDE]:
        enter(arguments[1:])
    if can_separate():
        with tempfile.TemporaryFile() as report:
            codes = side_by_side(arguments, report)
    else:
        codes = ordered(arguments)
    # A lane without tests is no fault where the arguments choose some; all of them without is.
    failed = [code for code in codes if code not in (0, _NOTHING_CHOSEN)]
    return failed[0] if failed else min(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
