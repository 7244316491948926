"""Whether a store answers: what `/readyz` and `lapse check` ask."""
