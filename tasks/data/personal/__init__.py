"""Personal data: found in text, and replaced by typed pseudonyms, dropped or refused."""
