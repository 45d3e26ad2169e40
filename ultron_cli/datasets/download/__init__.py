"""From a dataset's name to its unpacked folder.

catalog.py says what each publisher offers, install.py leads the way: fetching.py and transfers.py (over transport.py
and mirrors.py) bring the files, unpacking.py opens the archives, layouts.py turns the publisher's labels into a ground
truth, source_record.py notes where everything came from.
"""
