"""Hooks of an operator, which the setting LAPSE_RETENTION_HOOKS names."""

from lapse.retention.hooks import RetentionHooks


async def before_purge(session):
    """Note nothing."""


HOOKS = RetentionHooks(before_purge=before_purge)
