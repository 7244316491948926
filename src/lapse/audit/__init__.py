"""The audit log: who changed what by hand."""
