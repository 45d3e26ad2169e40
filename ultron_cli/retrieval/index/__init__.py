"""Indexes of descriptor files: built (building.py), opened and searched (opening.py, faiss_index.py), of kinds that
kinds.py lists, measured against exact search (report.py). Indexes whose descriptors lie in Milvus are in
retrieval/milvus/. base.py says what every index is."""
