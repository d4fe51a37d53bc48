"""The processors that this process may use, which in a container are fewer than the host has."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
_PYTHON_SETTING: Final = "PYTHON_CPU_COUNT"


def count_cpus(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int:
    """Return the number of processors that are allowed: by Python's setting, by affinity, and by cgroup quotas.

    Python 3.13 documents `PYTHON_CPU_COUNT`; it counts with older versions, too. A quota of one and a half processors
    counts as two.

    Args:
        cgroups: where the kernel's control groups are mounted, version 1 or 2.
        own: names the groups of this process.
    """
    setting = os.environ.get(_PYTHON_SETTING, "")
    if setting.isdecimal() and int(setting) > 0:
        return int(setting)
    affinity = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(cgroups, own))]))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Yield the quota of each control group that this process is in, in processors."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container, the own group is mounted as the root, whatever its path on the host.
        groups = {PurePosixPath("/"), *PurePosixPath(path).parents, PurePosixPath(path)}
        for group in (str(group).strip("/") for group in groups):
            if not controllers:
                yield from _read_quota(cgroups / group / "cpu.max")
            elif "cpu" in controllers.split(","):
                folder = cgroups / "cpu" / group
                yield from _read_quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _read_quota(*files: Path) -> Iterator[float]:
    """Yield the quotient of the two numbers in one or two files; nothing where there is no limit."""
    try:
        quota, period = (float(value) for path in files for value in path.read_text().split())
    except (OSError, ValueError):  # `max`, or no such group
        return
    if quota > 0 and period > 0:
        yield quota / period
