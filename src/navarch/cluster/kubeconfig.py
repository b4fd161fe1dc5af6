"""The user's kubeconfig: a cluster's entries are merged in when it comes up and taken out when it is deleted.

Other tools write the same file, so it is changed under kubectl's own lock (`<file>.lock`), atomically, and everything
that is not ours is left as it was. A cluster's entries are all called `navarch-NAME`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from navarch.cluster.config import ClusterConfig
from navarch.world import MACHINE

_LOCK_WAIT_S = 10.0
_STALE_LOCK_S = 60.0
_SECTIONS = ("clusters", "contexts", "users")


class KubeconfigError(Exception):
    """The file cannot be read or locked; nothing was changed."""


def target_of(config: ClusterConfig) -> Path:
    """The file to merge into: the one chosen with `--kubeconfig`, else the first of `$KUBECONFIG`, else
    `~/.kube/config`."""
    if config.kubeconfig:
        return Path(config.kubeconfig)
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def merge(config: ClusterConfig) -> Path:
    """Put the cluster's admin entries into the user's kubeconfig and make them the current context; the file's path."""
    import yaml

    path = target_of(config)
    ours = yaml.safe_load(config.admin_kubeconfig.read_text())
    with _locked(path):
        document = _read(path)
        for section in _SECTIONS:
            kept = [entry for entry in document.get(section) or [] if entry.get("name") != config.context]
            document[section] = kept + ours[section]
        if (before := document.get("current-context")) != config.context:
            _remembered(config).write_text(str(before or ""))
        document["current-context"] = config.context
        _write(path, document)
    return path


def refresh(config: ClusterConfig) -> None:
    """Have the cluster's entries, where they are there, be what they are now.  Raises KubeconfigError, OSError."""
    path = target_of(config)
    if not path.exists():
        return
    import yaml

    ours = yaml.safe_load(config.admin_kubeconfig.read_text())
    with _locked(path):
        document = _read(path)
        fresh = {
            section: [ours[section][0] if entry.get("name") == config.context else entry for entry in entries]
            for section in _SECTIONS
            if (entries := document.get(section))
        }
        if any(document[section] != entries for section, entries in fresh.items()):
            _write(path, {**document, **fresh})


def _remembered(config: ClusterConfig) -> Path:
    """Which context was current before this cluster's."""
    return config.root / "previous-context"


def check(config: ClusterConfig) -> None:
    """Find out before a cluster is started whether its entries can be merged.  Raises KubeconfigError."""
    path = target_of(config)
    with _locked(path):
        _read(path)


def remove(config: ClusterConfig) -> bool:
    """Take the cluster's entries out again; False where there were none."""
    path = target_of(config)
    if not path.exists():
        return False
    with _locked(path):
        document = _read(path)
        found = False
        for section in _SECTIONS:
            entries = document.get(section) or []
            kept = [entry for entry in entries if entry.get("name") != config.context]
            found = found or len(kept) != len(entries)
            document[section] = kept
        if document.get("current-context") == config.context:
            # Back to what was current before, or to nothing: never to a cluster that nobody chose.
            memory = _remembered(config)
            before = memory.read_text() if memory.exists() else ""
            names = [entry.get("name") for entry in document["contexts"]]
            document["current-context"] = before if before in names else ""
            found = True
        if found:
            _write(path, document)
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unwritable(path, error) from error
    lock = path.with_name(path.name + ".lock")
    give_up_s = MACHINE.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if MACHINE.now().timestamp() - lock.stat().st_mtime > _STALE_LOCK_S:
                    # Whoever made it died in between.
                    lock.unlink()
                    continue
            if MACHINE.monotonic() > give_up_s:
                raise KubeconfigError(
                    f"{path} is locked by another program; remove {lock} if none is running"
                ) from None
            MACHINE.pause(0.05)
        except OSError as error:
            raise _unwritable(path, error) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> KubeconfigError:
    return KubeconfigError(
        f"cannot write {path}: {error.strerror}; choose another file with --kubeconfig or $KUBECONFIG"
    )


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text()) if path.exists() else None
    except (OSError, yaml.YAMLError) as error:
        raise KubeconfigError(f"cannot read {path}: {error}") from error
    if document is None:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path} is not a kubeconfig")
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    import yaml

    # Through a symbolic link, as people keep their kubeconfig in a repository of dotfiles.
    target = path.resolve()
    partial = target.with_name(target.name + ".partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            yaml.safe_dump(document, file, sort_keys=False)
        partial.replace(target)
    except OSError as error:
        # A full disk: the file is as it was.
        partial.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
