"""Who changed what by hand."""
