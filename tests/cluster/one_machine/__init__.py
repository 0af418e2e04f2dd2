"""A real Slurm of one node, and a SkyPilot client that uses it, on one machine without a network.

`slurm` holds the daemons, `client` the SkyPilot side, `prices` the invented catalogs, `processes` what is running
and how it ends. README.md in this folder says what is real and what is pretended.
"""
