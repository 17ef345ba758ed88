"""A sweep: training settings are searched for the lowest validation loss. Optuna proposes, our processes train."""
