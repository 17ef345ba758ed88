"""What a training will need, before anything is taken: memory by part, time, and the settings that would fit."""
