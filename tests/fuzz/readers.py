"""The table of readers: what is damaged, what is sound, and what reads it. A new reader is an entry of its subject."""

from tests.fuzz.dataset_readers import DATASET_READERS
from tests.fuzz.descriptor_readers import DESCRIPTOR_READERS
from tests.fuzz.download_readers import DOWNLOAD_READERS
from tests.fuzz.exchange_readers import EXCHANGE_READERS
from tests.fuzz.network_readers import NETWORK_READERS
from tests.fuzz.photo_readers import PHOTO_READERS
from tests.fuzz.reader import Reader
from tests.fuzz.result_readers import RESULT_READERS
from tests.fuzz.run_readers import RUN_READERS

READERS: dict[str, Reader] = {
    **DATASET_READERS,
    **PHOTO_READERS,
    **DOWNLOAD_READERS,
    **RUN_READERS,
    **RESULT_READERS,
    **EXCHANGE_READERS,
    **DESCRIPTOR_READERS,
    **NETWORK_READERS,
}
