"""Feeds every reader of the toolkit with damaged files: `python -m tests.fuzz` (README of it: docs/reliability.md).

readers.py is the table of readers, by subject in *_readers.py: a new reader is an entry there. *mutations.py and
structures.py damage sound files by number, hostile_*.py make those that are thought out; running.py runs a reader in a
child with limits on memory and time and keeps the smallest file of every failure.
"""
