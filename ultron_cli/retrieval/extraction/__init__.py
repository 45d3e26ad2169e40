"""`ultron extract`: dataset.py opens a dataset and leads the way, describe.py runs the network on a batch at the scales
of scales.py, shards.py computes and stores a file's shards and takes up an interrupted run, processes.py shares the
work among processes."""
