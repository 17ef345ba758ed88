"""Watching the traffic: recent requests, drift against the training rows, and the event that starts a retraining."""
