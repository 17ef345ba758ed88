"""The registry: MLflow runs, versions and aliases, and the promotion ledger."""
