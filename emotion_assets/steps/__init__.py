"""The steps of the pipeline; they know no orchestrator."""

import os

# Read when torch is loaded. Threads that wait for each other must sleep: those that spin take the processor from the
# thread that they wait for, as soon as another program is busy. See benchmarks/busy_machine.md.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
