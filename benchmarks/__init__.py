"""Measurements against what a user would use instead, each as a ratio against a peer in the same run."""

# In the order of RESULTS.md and of `make bench`.
MODULES = (
    "startup",
    "training",
    "on_policy",
    "distillation",
    "under_load",
    "generation",
    "serving",
    "evaluation",
    "estimates",
    "votes",
    "cluster",
    "sandbox",
    "comparison",
    "scale",
    "launch",
    "calibration",
    "power",
    "any_look",
)
