"""Metrics of generated text as `evaluate.Metric` modules that need no network. Heavy to import: import them late."""
