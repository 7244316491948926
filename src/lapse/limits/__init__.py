"""How much of a request is taken in."""
