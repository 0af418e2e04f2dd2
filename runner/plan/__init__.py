"""From a spec to its stages, each with a digest of everything that can change its output."""
