from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emotion_assets.core.limits import count_cpus, memory_bytes

MANY = set(range(64))


@pytest.fixture(autouse=True)
def _large_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 64 processors without a setting."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: MANY)
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)


def write_tree(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)


def count(tmp_path: Path, own: str, files: dict[str, str]) -> int:
    """Count with a tree of control groups as the kernel shows them."""
    write_tree(tmp_path, own, files)
    return count_cpus(tmp_path / "cgroup", tmp_path / "own")


V1 = "3:cpuset:/\n2:cpu,cpuacct:/docker/1f\n1:memory:/docker/1f\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {}, 64),
        ("0::/a.slice/b.scope\n", {"a.slice/cpu.max": "300000 100000", "a.slice/b.scope/cpu.max": "max 100000"}, 3),
        ("0::/a.slice/b.scope\n", {"a.slice/cpu.max": "800000 100000", "a.slice/b.scope/cpu.max": "200000 100000"}, 2),
        ("0::/host/path\n", {"cpu.max": "400000 100000"}, 4),
        (V1, {"cpu/docker/1f/cpu.cfs_quota_us": "50000", "cpu/docker/1f/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        (V1, {"cpu/cpu.cfs_quota_us": "damaged", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, own: str, files: dict[str, str], expected: int) -> None:
    """Version 1 and 2, from inside a container and from outside; the tightest group on the path counts."""
    assert count(tmp_path, own, files) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "536870912\n"}, 2**29),
        ("0::/a.slice/b.scope\n", {"a.slice/memory.max": "1073741824", "a.slice/b.scope/memory.max": "max"}, 2**30),
        (V1, {"memory/docker/1f/memory.limit_in_bytes": "536870912"}, 2**29),
        (V1, {"memory/memory.limit_in_bytes": "268435456"}, 2**28),
    ],
)
def test_limits_of_memory(tmp_path: Path, own: str, files: dict[str, str], expected: int) -> None:
    """As for processors; without a limit, or with one above it, the machine's memory counts."""
    write_tree(tmp_path, own, files)
    assert memory_bytes(tmp_path / "cgroup", tmp_path / "own") == expected
    write_tree(tmp_path, own, {name: str(2**62) for name in files})
    assert memory_bytes(tmp_path / "cgroup", tmp_path / "own") == memory_bytes(tmp_path, tmp_path / "none") > 2**30


@pytest.mark.parametrize(("setting", "expected"), [("5", 5), ("0", 64), ("default", 64), ("", 64)])
def test_pythons_own_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, expected: int) -> None:
    monkeypatch.setenv("PYTHON_CPU_COUNT", setting)

    assert count(tmp_path, "0::/\n", {}) == expected


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert count_cpus(tmp_path / "none", tmp_path / "none") == 64


def test_a_pinned_process_has_one_processor() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
    code += "from emotion_service.settings import Settings; print(Settings.load().workers)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)

    assert done.stdout.strip() == "1"
