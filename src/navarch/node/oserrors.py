"""Errors of the operating system, as the kubelet's messages have them: what it is about, and why it is not."""

from __future__ import annotations


def told(error: OSError) -> str:
    """`/var/lib/x: no space left on device`."""
    if not error.strerror:
        return str(error)
    why = error.strerror[:1].lower() + error.strerror[1:]
    return f"{error.filename}: {why}" if error.filename else why


def words(error: Exception) -> str:
    """The same of any error: those of other kinds say it themselves."""
    return told(error) if isinstance(error, OSError) else str(error)
