"""The spec language: from YAML to a checked, complete `Experiment`."""
