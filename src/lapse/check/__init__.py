"""How a store is, before anybody works in it."""
