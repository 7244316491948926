"""Retention: used sessions leave ADK's tables by a policy that somebody has confirmed.

Off by default. Two things must hold before anything is taken: LAPSE_RETENTION_FILE names a policy,
and the store holds a confirmation of exactly its parsed content (`Policy.digest`).

    policy file ── read_policy ──► Policy ── digest equal to the confirmed one? ──► in force
                                     │
    ADK's tables ── archive ──► lapse_archive (one compressed row) ── purge ──► nothing
          ▲                          │
          └──── restore: by a message, a run or a request

An archived session keeps its row in the lobby, with the status `archived`. Archive, restore and
purge are one transaction each. Before it archives, the transaction locks the rows of the session,
and reads only then when the session was last active: a message that was committed before is seen,
and one that comes after restores the session in its own transaction.
"""
