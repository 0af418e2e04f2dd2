"""The artifacts of a workspace, which are the truth, and DuckDB, which is their index."""
