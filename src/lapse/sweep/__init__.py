"""The sweep, which expires and purges the sessions that are due, and its brake."""
