"""Configuration files that are read again when they change, while the server runs.

In: a file, and what makes the server go by it.  Out: the same server, by the new file; by the old one as long as the
new one cannot be used, which the log and the metrics say. Whoever replaces a file needs no restart.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from navarch.apiserver.housekeeping import Chore
from navarch.cluster.config import ConfigError
from navarch.store.base import StoreUnavailable
from navarch.world import World

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
_SUCCESS, _FAILURE = "success", "failure"


class ConfigFile:
    """`about` is Kubernetes' word for it in metrics: `authentication`, `authorization`, `encryption`. `use` reads the
    file and puts it to use, or raises ConfigError, or StoreUnavailable if it is worth another try."""

    def __init__(self, about: str, path: Path, use: Callable[[], Awaitable[None]], world: World) -> None:
        self._about = about
        self._path = path
        self._use = use
        self._world = world
        self._seen = _digest(path)
        self._counts = {_SUCCESS: 0, _FAILURE: 0}
        self._last: dict[str, datetime] = {}

    @property
    def chore(self) -> Chore:
        return Chore(f"{self._about} configuration", EVERY_S, self.look)

    async def look(self) -> None:
        found = await self._world.in_thread(_digest, self._path)
        if found == self._seen:
            return
        try:
            await self._use()
        except ConfigError as error:
            # It will be looked at again when it is another one.
            self._seen = found
            self._ended(_FAILURE)
            log.error("the new %s configuration is not used: %s", self._about, error)
        except StoreUnavailable as error:
            self._ended(_FAILURE)
            log.error("the new %s configuration cannot be used yet: %s", self._about, error)
        else:
            self._seen = found
            self._ended(_SUCCESS)
            log.info("%s is used from now on", self._path)

    def _ended(self, how: str) -> None:
        self._counts[how] += 1
        self._last[how] = self._world.now()

    def lines(self) -> Iterator[str]:
        """For `/metrics`."""
        name = f"apiserver_{self._about}_config_controller_automatic_reload"
        yield f"# HELP {name}s_total Total number of automatic reloads of {self._about} configuration."
        yield f"# TYPE {name}s_total counter"
        for status, count in self._counts.items():
            yield f'{name}s_total{{status="{status}"}} {count}'
        yield f"# HELP {name}_last_timestamp_seconds When {self._about} configuration was last reloaded."
        yield f"# TYPE {name}_last_timestamp_seconds gauge"
        for status, when in self._last.items():
            yield f'{name}_last_timestamp_seconds{{status="{status}"}} {when.timestamp():g}'


def _digest(path: Path) -> bytes:
    """Empty for a file that cannot be read: it may be in the middle of being replaced."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
