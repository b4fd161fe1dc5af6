"""Jobs: run pods until enough of them have succeeded, or give up.

`sync` is the controller; `counting` says which pods ended how and which of them have been counted, `indexes` handles
completion indexes, `failure` the policies that end a Job early and the back-off between attempts, `conditions` its
conditions; `orphans` frees pods whose Job is gone, `ttl` deletes finished Jobs, `cron` makes Jobs on a schedule.
"""

from navarch.controllers.job.cron import CronJobController
from navarch.controllers.job.orphans import JobOrphanController
from navarch.controllers.job.sync import JobController
from navarch.controllers.job.ttl import TTLAfterFinishedController

__all__ = ["CronJobController", "JobController", "JobOrphanController", "TTLAfterFinishedController"]
