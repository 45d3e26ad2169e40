"""Descriptors from and for other tools: a file per format, and rows.py, what they share. A format is an entry of
DESCRIPTOR_FORMATS; a file is of the first that takes it for its own.

importing.py makes queries.h5 and database.h5 of files of somebody else, exporting.py writes theirs.
"""

from ultron_cli.retrieval.exchange.descriptors import (
    comma,
    faiss_flat,
    hdf5_files,
    matlab,
    numpy_files,
    parquet,
    pickled,
    torch_files,
)
from ultron_cli.retrieval.exchange.descriptors.rows import DescriptorFormat

DESCRIPTOR_FORMATS: dict[str, DescriptorFormat] = {
    "revisitop": matlab.FORMAT,
    "npy": numpy_files.NPY,
    "npz": numpy_files.NPZ,
    "pt": torch_files.FORMAT,
    "dolg": pickled.FORMAT,
    "ilias": hdf5_files.ILIAS,
    "hloc": hdf5_files.HLOC,
    "parquet": parquet.FORMAT,
    "faiss": faiss_flat.FORMAT,
    "csv": comma.FORMAT,
}
