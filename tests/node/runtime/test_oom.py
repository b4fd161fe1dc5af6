"""The kernel's log tells which container was killed for memory, whichever cgroup was full."""

from __future__ import annotations

from pathlib import Path

from navarch.node.runtime.oom import was_killed_for_memory

LOG = (
    "6,1,100,-;tail invoked oom-killer: gfp_mask=0xcc0\n"
    "6,2,101,-;oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/n/pod1,task_memcg=/n/pod1/abc123,task=tail,pid=8\n"
    "6,3,102,-;eth0: link becomes ready def456\n"
)


def test_the_container_in_the_log_was_killed_for_memory_and_others_were_not(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text(LOG)

    assert was_killed_for_memory("abc123", log)
    assert not was_killed_for_memory("fff999", log)


def test_without_a_log_nothing_is_claimed(tmp_path: Path) -> None:
    assert not was_killed_for_memory("abc123", tmp_path / "absent")
