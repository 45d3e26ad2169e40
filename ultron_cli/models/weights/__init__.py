"""Weight files: checkpoints.py is a model's own file, choice.py finds the model that a command asks for, importers.py
and cirtorch.py read other authors' files."""
