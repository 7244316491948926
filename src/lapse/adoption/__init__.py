"""Sessions that stock ADK created and nobody spoke to, moved into the lobby."""
