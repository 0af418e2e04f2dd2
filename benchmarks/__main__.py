"""`make bench`: every measurement, one after another, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

MODULES = (
    *(
        "startup",
        "comparison",
        "generation",
        "serving",
        "training",
        "distillation",
        "on_policy",
        "sandbox",
        "under_load",
    ),
    *("evaluation", "cluster", "launch", "any_look", "calibration", "power", "votes"),
)

if __name__ == "__main__":
    codes = [subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode for name in MODULES]
    sys.exit(max(codes))
