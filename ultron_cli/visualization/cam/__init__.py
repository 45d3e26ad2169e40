"""`ultron visualize cam`: similarity.py computes a map by a method of method_table.py, whose functions are in
methods.py; sheet.py and columns.py are the figures, draw.py makes them of stored searches."""
