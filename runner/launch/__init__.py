"""`nsd launch`: a spec on a rented machine, through SkyPilot, with the same artifacts as from a local run."""
