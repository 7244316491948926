"""What every request passes through, the outermost last."""
