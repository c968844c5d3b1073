"""The code's own rules."""
