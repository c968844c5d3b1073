"""What people look through: events as they happen, explanations, a live view, an archive.

All of it reads; what it has to write (who listens, private maps) changes nothing for traffic.
"""
