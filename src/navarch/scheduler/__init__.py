"""The scheduler: from pending pods to bindings. Start reading in `scheduler.py`, which walks one placement through."""

from navarch.scheduler.config import SchedulerConfig, default_plugins, default_profile
from navarch.scheduler.framework import Plugin, Profile, Scope
from navarch.scheduler.scheduler import Scheduler

__all__ = ["Plugin", "Profile", "Scheduler", "SchedulerConfig", "Scope", "default_plugins", "default_profile"]
