"""AutoLA: the search for an attention's genotype. network.py is the network searched in, search.py its optimisation,
run.py a run of it."""
