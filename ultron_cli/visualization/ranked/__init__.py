"""`ultron visualize ranks`: queries with their best photos, of one search (lists.py) or several (systems.py); draw.py
makes the figures of stored searches."""
