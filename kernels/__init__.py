"""The operators that the ULTRON network stands on. Imports nothing from ultron_cli."""
