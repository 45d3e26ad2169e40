"""`ultron visualize cam`: similarity.py computes maps by the methods of methods.py, sheet.py and columns.py draw
them."""
