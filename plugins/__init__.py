"""What a spec can name: one small file for each plugin. See `nsd.plugins.api` for the base types."""
