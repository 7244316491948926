"""The operators' pages at `/lapse/` and their API at `/lapse/api/`."""
