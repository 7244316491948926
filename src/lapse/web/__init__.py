"""HTTP: the application that Lapse adds itself to, and what stands in front of its routes."""
