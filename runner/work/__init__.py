"""From a plan to finished stages: the executor, its worker processes and what they do."""
