"""Building the servable Triton model, the model repository, the server, routing and roll-out."""
