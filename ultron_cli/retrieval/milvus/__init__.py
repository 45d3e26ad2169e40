"""Indexes whose descriptors lie in Milvus: client.py speaks to the server or the local file, building.py writes a
collection, index.py searches it, kinds.py lists its kinds, place.py says where a collection is."""
