"""`ultron visualize report`: one HTML file with scores, every query and pairs.

report.py gathers and writes it, maps.py makes its similarity maps, page.* is the page itself.
"""
