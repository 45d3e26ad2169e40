"""What comes from outside as text, read into types: JSON and TOML (texts.py), CSV (tables.py). No other module parses
such text.

values.py says what fits a type: a dataclass, a dictionary, a list or a union of them. Fields that a dataclass lacks are
let pass, so that files of newer versions stay readable. What does not fit is one line that names the file and the place
in it (`gnd[3].easy`). Only regular files are opened, and none that is larger than its reader says (regular.py).
"""
