"""Where descriptors lie in Milvus: server or local database, collection, and the variable that holds the token."""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ultron_cli.errors import UltronError


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where descriptors lie in Milvus. Raises UltronError if a part of it cannot be."""

    uri: str  # http(s)://HOST:PORT of a Milvus server, or the path of a milvus-lite database, NAME.db
    collection: str
    # The environment variable that holds the server's token (`token` or `user:password`); the token is stored nowhere.
    token_env: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri)
        if "@" in parts.netloc:
            raise UltronError(
                "`uri` must hold no user or password, it is stored with the index; put USER:PASSWORD in a "
                "variable for `token_env`"
            )
        if "://" in self.uri and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise UltronError(
                f"`uri` must be http://HOST:PORT, https://HOST:PORT or a file NAME.db, found {self.uri!r}"
            )
        if self.is_local and not self.uri.endswith(".db"):
            raise UltronError(f"`uri` must be http://HOST:PORT or a file that ends in .db, found {self.uri!r}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", self.collection):
            raise UltronError(
                f"`collection` must be up to 255 letters, digits and _, not a digit first, found {self.collection!r}"
            )
        if self.token_env is not None and not re.fullmatch(r"[A-Za-z0-9_]*MILVUS[A-Za-z0-9_]*", self.token_env):
            # An index folder from elsewhere names a variable too: it shall not be able to ask for another secret.
            raise UltronError(
                "`token_env` must name an environment variable with MILVUS in its name, for example MILVUS_TOKEN"
            )

    @property
    def is_local(self) -> bool:
        """Whether it is milvus-lite's database on this machine."""
        return "://" not in self.uri

    def token(self) -> str:
        """The token, or nothing. Raises UltronError if its variable is not set."""
        if self.token_env is None:
            return ""
        if not os.environ.get(self.token_env):
            raise UltronError(
                f"the environment variable {self.token_env} of `token_env` must hold the token of {self.uri}, "
                "it is not set"
            )
        return os.environ[self.token_env]
