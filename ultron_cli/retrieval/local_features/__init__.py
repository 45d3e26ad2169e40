"""Local features of many photos: files.py reads and writes their file, which lies beside the descriptor file."""
