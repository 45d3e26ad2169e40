"""`ultron visualize ranks`: queries with their best photos, of one search (lists.py) or several (systems.py)."""
