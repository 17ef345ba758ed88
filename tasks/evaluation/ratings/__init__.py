"""People's ratings: a blind sheet of two answers a row, read back and counted."""
