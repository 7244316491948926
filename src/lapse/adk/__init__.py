"""ADK's session service on a Lapse store, and Lapse's other uses of ADK."""
