"""The flows and the command line: the order of the stages, and nothing else."""
