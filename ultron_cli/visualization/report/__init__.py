"""`ultron visualize report`: one HTML file with scores, every query and pairs.

report.py gathers and writes it, similarity_maps.py makes its maps and maps.py packs them, page.* is the page itself.
"""
