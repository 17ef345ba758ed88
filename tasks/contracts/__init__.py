"""What stages hand each other: configuration, artifacts, errors and the store. Leaves that everything may import."""
