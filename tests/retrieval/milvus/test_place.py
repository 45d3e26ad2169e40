"""Names of collections, addresses, and tokens that are stored nowhere."""

import pytest

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.milvus.place import Place

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["", "1st", "a-b", "a b", "../x", "é", "x" * 256])
def test_collection_names(name):
    with pytest.raises(UltronError, match="`collection` must be up to 255 letters, digits and _"):
        Place(uri="http://h:1", collection=name)


def test_places_and_secrets(monkeypatch):
    for uri, words in (
        ("https://me:secret@h:1", "must hold no user or password"),
        ("ftp://h", "must be http://HOST:PORT"),
        ("http://", "must be http://HOST:PORT"),
        ("milvus", "a file that ends in .db"),
    ):
        with pytest.raises(UltronError, match=words) as caught:
            Place(uri=uri, collection="c")
        assert "secret" not in str(caught.value)
    with pytest.raises(UltronError, match="with MILVUS in its name"):
        Place(uri="http://h:1", collection="c", token_env="HOME")
    place = Place(uri="http://h:1", collection="c", token_env="MILVUS_TOKEN")
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    with pytest.raises(
        UltronError, match="variable MILVUS_TOKEN of `token_env` must hold the token of http://h:1, it is not set"
    ):
        place.token()
    monkeypatch.setenv("MILVUS_TOKEN", "root:pass")
    assert place.token() == "root:pass" and "pass" not in repr(place)
