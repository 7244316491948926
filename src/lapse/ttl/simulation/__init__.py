"""The TTL policy on a recorded or generated history, in virtual time."""
