"""`ultron extract`: dataset.py opens a dataset and leads the way, runtime_choice.py takes a runtime, describe.py runs
the network at the scales of scales.py, streams.py keeps all threads at it, shards.py stores a file's shards,
files.py takes up an interrupted run and shares a file's shards among the processes of processes.py."""
