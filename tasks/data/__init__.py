"""Sources, canonical rows, cleaning and the split into training and evaluation rows."""
