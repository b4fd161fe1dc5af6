"""When a step for a pod that failed, or that has to wait for something, is tried again: one policy for all steps.

What is likely to be mended by itself in a moment, such as an object that has not been heard of yet, is tried again
`SOON`; what takes somebody to mend it, or costs the runtime work, `AGAIN`. Changes of the pod, and what the runtime
reports, wake its worker before that.
"""

from __future__ import annotations

from datetime import timedelta

AGAIN = timedelta(seconds=10)
SOON = timedelta(seconds=1)
