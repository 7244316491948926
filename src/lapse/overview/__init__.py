"""What operators look at: counts, levels, and sessions by page."""
