"""Pod bandwidth limits. Nothing is here yet."""
