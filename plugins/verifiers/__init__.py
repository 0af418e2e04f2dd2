"""Verifiers: read the final answer out of a completion and compare it with the gold answer."""
