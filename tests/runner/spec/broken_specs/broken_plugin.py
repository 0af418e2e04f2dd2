"""A plugin file that cannot be run, for file_broken.yaml."""

raise RuntimeError("no such luck")
