"""Moves empty sessions that stock ADK created into the lobby, and back."""
