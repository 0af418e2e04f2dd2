"""Measurements against what a user would use instead, each as a ratio against a peer in the same run."""
