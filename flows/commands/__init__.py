"""A file for each command of `llm-retrain`, or for a few that belong together."""
