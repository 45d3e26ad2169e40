"""`ultron serve`: a local page that searches with a photo.

server.py speaks HTTP, routes.py says what each address answers, photo_search.py does the search, limits.py bounds what
a caller may ask.
"""
