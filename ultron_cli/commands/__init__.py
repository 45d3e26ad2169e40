"""The commands, one thin file each: parse, call a step, print.

`ultron X Y` is the function `command` of X/Y.py, with an EXAMPLE beside it; cli.py has the table of all. flags.py has
the flags that commands share, choices.py the names that help texts offer.
"""
