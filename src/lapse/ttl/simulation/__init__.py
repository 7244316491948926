"""The TTL policy tried on a history, in virtual time: "what if?" from recorded or made-up days."""
