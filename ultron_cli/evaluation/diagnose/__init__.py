"""Why two descriptor files of the same photos differ: `ultron diagnose`.

rows.py looks at the descriptors alone. recipes.py says what a descriptor depends on, settings.py what of it is tried,
making.py makes descriptors by a recipe, causes.py searches for the changes of ours that give the reference's, and
diagnosis.py does all of it in turn.
"""
