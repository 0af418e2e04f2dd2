"""Pins thread counts and keeps every test offline and away from the user's own workspace."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in ("NSD_WORKSPACE", "NSD_STORE", "NSD_SKY", "NSD_JOB", "NSD_USD_PER_HOUR"):
    os.environ.pop(_name, None)

# An example that takes long is no fault: the machine may be busy. Tests with settings of their own name both again.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
