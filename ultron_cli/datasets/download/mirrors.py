"""Where else a file is looked for: in mirrors and addresses that users name in DATA_ROOT/mirrors.toml or with --mirror.
Offline mode looks nowhere.

mirrors = ["https://mirror.example.org/datasets", "/mnt/archive/datasets"]        # BASE/SET/FILE, tried in this order
[addresses]
"rgldv2-clean/rgldv2_clean.csv" = ["https://example.org/rgldv2.csv"]               # one file, tried before the mirrors
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ultron_cli.datasets.download.known_set import KnownSet, Part
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.schema.texts import fit_file, read_toml
from ultron_cli.schema.values import shown

MIRRORS_FILE = "mirrors.toml"
SCHEMES = ("http", "https", "ftp", "file", "")


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """Addresses beside the publishers', by where they were named."""

    flag_bases: tuple[str, ...] = ()  # of --mirror, tried before everything else
    bases: tuple[str, ...] = ()  # of mirrors.toml
    addresses: dict[str, tuple[str, ...]]  # of mirrors.toml, by SET/FILE

    def of_part(self, known: KnownSet, part: Part) -> tuple[str, ...]:
        """Every address of a part, in the order to try. Raises UltronError if there is none."""
        addresses = dict.fromkeys(
            (
                *self._below(self.flag_bases, known, part.file),
                *self.addresses.get(f"{known.name}/{part.file}", ()),
                *self._below(self.bases, known, part.file),
                *part.addresses,
            )
        )
        if not addresses:
            raise UltronError(
                f"{known.name}: {known.withdrawn or 'no address is known'}; with an address of your own write "
                f'"{known.name}/{part.file}" = ["ADDRESS"] below [addresses] in {MIRRORS_FILE} of the data root'
            )
        return tuple(addresses)

    def of_checksum(self, known: KnownSet, part: Part) -> tuple[str, ...]:
        """Addresses of the publisher's checksum file of a part."""
        assert part.checksum_address is not None  # asked only where there is one
        name = part.checksum_address.rsplit("/", 1)[1]
        return (
            *self._below(self.flag_bases, known, name),
            *self._below(self.bases, known, name),
            part.checksum_address,
        )

    @staticmethod
    def _below(bases: tuple[str, ...], known: KnownSet, file: str) -> tuple[str, ...]:
        return tuple(f"{base.rstrip('/')}/{known.name}/{file}" for base in bases)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """mirrors.toml."""

    mirrors: str | list[str] = field(default_factory=list)
    addresses: dict[str, str | list[str]] = field(default_factory=dict)


def _addresses(value: str | list[str], where: str) -> tuple[str, ...]:
    """An address or a list of addresses of a settings file. Raises UltronError for one that cannot be opened."""
    values = [value] if isinstance(value, str) else value
    for address in values:
        check_address(address, where)
    return tuple(values)


def check_address(address: str, where: str) -> None:
    """Raises UltronError unless an address is one that transport.py opens."""
    try:
        scheme = urlsplit(address).scheme
    except ValueError:  # brackets that hold no address of a host
        scheme = None
    if scheme not in SCHEMES or not address:
        raise UltronError(
            f"{where}: an address must start with http://, https://, ftp:// or file://, or be a path; "
            f"found {shown(address)}"
        )


def read_mirrors(data_root: Path, flag_bases: Sequence[str] = ()) -> Mirrors:
    """The settings of DATA_ROOT/mirrors.toml (which may be absent) and --mirror. Raises UltronError for an unknown key
    or a wrong address."""
    path = data_root / MIRRORS_FILE
    content = read_toml(path, "list of mirrors", dict[str, object]) if path.exists() else {}
    known = ("mirrors", "addresses")
    for key in content:
        if key not in known:
            raise UltronError(
                f"{path}: unknown setting {shown(key)}{nearest_names(key[:60], known)} (known: {', '.join(known)})"
            )
    settings = fit_file(content, _Settings, path, "list of mirrors", "write addresses in quotes, or lists of them")
    for address in flag_bases:
        check_address(address, "`mirror`")
    return Mirrors(
        flag_bases=tuple(flag_bases),
        bases=_addresses(settings.mirrors, f"{path}: mirrors"),
        addresses={key: _addresses(value, f"{path}: {shown(key)}") for key, value in settings.addresses.items()},
    )


def is_offline(flag: bool) -> bool:
    """--offline, or ULTRON_OFFLINE set to anything but 0, no, false."""
    return flag or os.environ.get("ULTRON_OFFLINE", "").lower() not in ("", "0", "no", "false")
