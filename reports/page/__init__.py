"""One HTML file that holds everything: the report of an experiment or of many runs, and the log."""
