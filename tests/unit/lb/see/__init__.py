"""What people look through."""
