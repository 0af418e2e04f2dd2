"""Results of other tools become runs of a workspace: reading.py reads a file, storing.py keeps it as a run."""
