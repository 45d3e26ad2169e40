"""`ultron extract`: dataset.py opens a dataset and leads the way, describe.py runs the network on a batch at the scales
of scales.py, shards.py computes and stores a file's shards, files.py takes up an interrupted run and shares a file's
shards among the processes of processes.py."""
