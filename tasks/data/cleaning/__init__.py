"""Cleaning: an ordered line of named steps, each a class with one method over a batch of rows."""
