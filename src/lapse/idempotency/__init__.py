"""Idempotency keys: a request that is sent again with its key does nothing twice."""
