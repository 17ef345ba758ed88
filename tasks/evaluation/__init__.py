"""Evaluation: generation, metrics, their uncertainty, the gate that decides and the report that shows it."""
