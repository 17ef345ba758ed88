"""The stages of the loop. Imports go one way: flows → tasks/<stage> → tasks/contracts."""
