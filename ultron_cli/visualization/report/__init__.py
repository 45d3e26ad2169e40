"""`ultron visualize report`: one HTML file with scores, every query and pairs; page.* is the page itself."""
