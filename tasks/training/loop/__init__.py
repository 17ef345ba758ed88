"""The loop of optimizer steps: rows, batches, the trainee and its loss, the optimizer, checkpoints."""
