"""Training: base models, the training process and what it hands back."""
