from __future__ import annotations

import os
import subprocess
import sys

import psutil

CHILD = "import os, sys, time; from emotion_assets.core.processes import die_with_parent;"
WAIT = CHILD + "die_with_parent(); print(os.getpid(), flush=True); time.sleep(600)"


def test_die_with_parent_ends_the_child_of_a_killed_process() -> None:
    """SIGKILL gives the parent no chance to end it."""
    parent_code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAIT!r}])"
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()

    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_die_with_parent_ends_at_once_if_the_parent_is_dead() -> None:
    """The parent may have died before the kernel was asked."""
    code = CHILD + "die_with_parent(int(sys.argv[1])); sys.exit(0)"

    def run(parent_pid: int) -> int:
        return subprocess.run([sys.executable, "-c", code, str(parent_pid)], check=False).returncode

    assert run(os.getpid()) == 0
    assert run(os.getpid() + 1) == 1
