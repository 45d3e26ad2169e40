"""Where else a file is looked for: in mirrors and addresses that users name in DATA_ROOT/mirrors.toml or with --mirror.
Offline mode looks nowhere.

mirrors = ["https://mirror.example.org/datasets", "/mnt/archive/datasets"]        # BASE/SET/FILE, tried in this order
[addresses]
"rgldv2-clean/rgldv2_clean.csv" = ["https://example.org/rgldv2.csv"]               # one file, tried before the mirrors
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ultron_cli.configs import read_toml
from ultron_cli.datasets.download.catalog import KnownSet, Part
from ultron_cli.errors import UltronError, nearest_names

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


def _addresses(value: object, where: str) -> tuple[str, ...]:
    """An address or a list of addresses of a settings file. Raises UltronError for anything else."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(address, str) for address in values):
        raise UltronError(f"{where} must be an address or a list of addresses; found {str(value)[:60]}")
    for address in values:
        check_address(address, where)
    return tuple(values)


def check_address(address: str, where: str) -> None:
    """Raises UltronError unless an address is one that transport.py opens."""
    if urlsplit(address).scheme not in SCHEMES or not address:
        raise UltronError(
            f"{where}: an address must start with http://, https://, ftp:// or file://, or be a path; found {address!r}"
        )


def read_mirrors(data_root: Path, flag_bases: Sequence[str] = ()) -> Mirrors:
    """The settings of DATA_ROOT/mirrors.toml (which may be absent) and --mirror. Raises UltronError for an unknown key
    or a wrong address."""
    path = data_root / MIRRORS_FILE
    content = read_toml(path) if path.is_file() else {}
    known = ("mirrors", "addresses")
    for key in content:
        if key not in known:
            raise UltronError(f"{path}: unknown setting {key!r}{nearest_names(key, known)} (known: {', '.join(known)})")
    addresses = content.get("addresses", {})
    if not isinstance(addresses, dict):
        raise UltronError(f'{path}: addresses must be a table of "SET/FILE" = ["ADDRESS"]; found {str(addresses)[:60]}')
    for address in flag_bases:
        check_address(address, "mirror")
    return Mirrors(
        flag_bases=tuple(flag_bases),
        bases=_addresses(content.get("mirrors", []), f"{path}: mirrors"),
        addresses={key: _addresses(value, f"{path}: {key}") for key, value in addresses.items()},
    )


def is_offline(flag: bool) -> bool:
    """--offline, or ULTRON_OFFLINE set to anything but 0, no, false."""
    return flag or os.environ.get("ULTRON_OFFLINE", "").lower() not in ("", "0", "no", "false")
