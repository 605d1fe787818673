"""Guide to this room."""
