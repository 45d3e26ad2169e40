"""Feeds every reader of the toolkit with damaged files: `python -m tests.fuzz` (README of it: docs/reliability.md).

readers.py is the table of readers: a new one is an entry there. mutations.py damages, running.py runs a reader in a
child with limits on memory and time and keeps the smallest file of every failure.
"""
