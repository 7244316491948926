"""Detached runs: they go on when their connection ends, and their streams can be resumed."""
