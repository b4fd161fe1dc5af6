"""What an object counts against a quota, as the quota controller counts it too: `navarch.kinds.core.quota_usage`."""

from navarch.kinds.core.quota_usage import DEVICES, Amounts, covers, unsaid, usage_of

__all__ = ["DEVICES", "Amounts", "covers", "unsaid", "usage_of"]
