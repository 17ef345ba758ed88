"""Single records across data versions: where they are, what they were, and how they are kept out."""
