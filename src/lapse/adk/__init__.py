"""ADK's session service on a Lapse store, and all that knows ADK."""
