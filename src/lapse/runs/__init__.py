"""Runs that outlive their connection, and streams of them that can be resumed."""
