"""Augmentation: rows made of training rows, each marked with its parent and its method."""
