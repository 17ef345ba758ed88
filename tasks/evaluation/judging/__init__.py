"""A model as judge: which of two answers to the same row is better, asked in both orders."""
