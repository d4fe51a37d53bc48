from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = "import emotion_assets.definitions, sys; print('torch' in sys.modules); import torch"
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch brings another OpenMP")
@pytest.mark.parametrize(
    ("settings", "policy", "spins"),
    [
        ({}, "PASSIVE", "2000"),
        ({"OMP_WAIT_POLICY": "active"}, "ACTIVE", "30000000000"),  # OpenMP's own
        ({"OMP_WAIT_POLICY": "passive"}, "PASSIVE", "0"),
        ({"GOMP_SPINCOUNT": "300"}, "PASSIVE", "300"),
    ],
)
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(
    settings: dict[str, str], policy: str, spins: str
) -> None:
    """The policy is set before torch is loaded, which reads it once; OpenMP itself says what it read."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **settings}

    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False"]
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
