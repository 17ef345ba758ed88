"""LoRA training steps for Llama-shaped models on a CPU, with hand-written passes over packed rows."""
