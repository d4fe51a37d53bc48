from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = "import emotion_assets.definitions, os, sys; print('torch' in sys.modules); import torch; "
CODE += "print(os.environ['OMP_WAIT_POLICY'])"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch brings another OpenMP")
@pytest.mark.parametrize(("setting", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(setting: dict[str, str], policy: str) -> None:
    """The policy is set before torch is loaded, which reads it once; OpenMP itself says what it read."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "true", **setting}

    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", policy.lower()]
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr
