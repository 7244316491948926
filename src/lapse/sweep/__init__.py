"""The sweep: due waiting sessions expire, due expired ones are purged; and its brake."""
