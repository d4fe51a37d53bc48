"""The processors and the memory that this process may use, which in a container are less than the host has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
_PYTHON_SETTING: Final = "PYTHON_CPU_COUNT"


def count_cpus(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int:
    """Return the number of processors that are allowed: by Python's setting, by affinity, and by cgroup quotas.

    Python 3.13 documents `PYTHON_CPU_COUNT`; it counts with older versions, too. A quota of one and a half processors
    counts as two. The kernel's control groups, version 1 or 2, are mounted at `cgroups`; `own` names this process's.
    """
    setting = os.environ.get(_PYTHON_SETTING, "")
    if setting.isdecimal() and int(setting) > 0:
        return int(setting)
    affinity = len(os.sched_getaffinity(0))
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(cgroups, own))]))


def memory_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int:
    """Return how much memory is allowed: what the machine has, or the limit of a control group below that."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [
        limit
        for group in _groups("memory", cgroups, own)
        for name in ("memory.max", "memory.limit_in_bytes")
        for limit in _read_numbers(group / name)
    ]
    return int(min([machine, *(limit for limit in limits if limit > 0)]))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Yield the quota of each control group that this process is in, in processors."""
    for group in _groups("cpu", cgroups, own):
        for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            numbers = [number for name in files for number in _read_numbers(group / name)]
            if len(numbers) == 2 and min(numbers) > 0:
                yield numbers[0] / numbers[1]


def _groups(controller: str, cgroups: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, and of those around them."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        # In a container, the own group is mounted as the root, whatever its path on the host.
        for group in {PurePosixPath("/"), *PurePosixPath(path).parents, PurePosixPath(path)}:
            yield root / str(group).strip("/")


def _read_numbers(path: Path) -> list[float]:
    """Return the numbers in a file; none where there is no limit (`max`) or no such group."""
    try:
        return [float(value) for value in path.read_text().split()]
    except (OSError, ValueError):
        return []
