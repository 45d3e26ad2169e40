"""Indexes of descriptor files: built (building.py, training.py), opened and searched (faiss_index.py), of kinds that
kinds.py lists, measured against exact search (report.py). Indexes whose descriptors lie in Milvus are in
retrieval/milvus/."""
