"""The commands of `lapse` that have a module of their own."""
