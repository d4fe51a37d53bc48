"""The steps of the pipeline; they know no orchestrator."""

import os

# Read when torch is loaded. Threads that wait for each other must soon sleep: those that spin take the processor from
# the thread that they wait for, as soon as another program is busy. See benchmarks/training.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
