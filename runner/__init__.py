"""From a spec to finished stages: `spec` -> `plan` -> `execute` -> `store`."""
