"""Commands that change rules in the kernel: given a script, bounded in time, their complaints kept."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

# Ten thousand services take seconds; a command that waits for a lock of the kernel waits for ever.
LIMIT_S: Final = 60.0


class CommandError(Exception):
    """The command refused its script; the message is what it said, shortened."""


async def run_command(*command: str, script: str = "", limit_s: float = LIMIT_S) -> str:
    """Give a command `script` on standard input, return its output.  Raises CommandError, also when it takes longer
    than `limit_s`: it is killed then, and the kernel has all of the script or nothing."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            # A command that reads nothing may end before a pipe to it is there.
            stdin=asyncio.subprocess.PIPE if script else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(limit_s):
            output, errors = await process.communicate(script.encode() if script else None)
    except TimeoutError:
        raise CommandError(f"{command[0]} did not end within {limit_s:g} s") from None
    except (OSError, RuntimeError) as error:
        # It ended before it had read its input (uvloop calls writing to a closed pipe a RuntimeError).
        raise CommandError(f"{command[0]} ended early: {error}") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode:
        raise CommandError(
            errors.decode(errors="replace")[:2000].strip() or f"{command[0]} exited with {process.returncode}"
        )
    return output.decode()
