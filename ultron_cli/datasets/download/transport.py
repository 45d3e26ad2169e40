"""Opens an address at an offset: HTTP and HTTPS (with the system's proxy settings), FTP, and plain files.

What goes wrong becomes one of two exceptions: Broken (worth another try) and Gone (this address will not serve the
file).
"""

import ftplib
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ultron_cli import __version__
from ultron_cli.errors import UltronError

PASSING_CODES = (408, 423, 425, 429, 500, 502, 503, 504, 507, 509)
LONGEST_REFUSAL_S = 60.0


class Broken(Exception):
    """The connection failed in a way that may pass. wait_s: what the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Gone(Exception):
    """This address does not serve the file."""


class OutOfRange(Exception):
    """The server has nothing at the offset. n_bytes: the size it tells, or None."""

    def __init__(self, n_bytes: int | None) -> None:
        super().__init__("nothing at that offset")
        self.n_bytes = n_bytes


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An open transfer."""

    read: Callable[[int], bytes]  # as of a file
    close: Callable[[], None]
    start: int  # offset of the first byte
    n_bytes: int | None  # of the whole file, where the server tells it
    validator: str  # what tells versions of the file apart; empty where the server tells nothing


def open_address(address: str, offset: int, validator: str, timeout_s: float) -> Reply:
    """Starts a transfer at `offset` if the file is still the one of `validator` (empty: not asked), else at 0. Raises
    Broken, Gone or OutOfRange."""
    scheme = urlsplit(address).scheme
    if scheme in ("", "file"):
        return _open_file(address, offset, validator)
    if scheme == "ftp" and "ftp" not in urllib.request.getproxies():
        return _open_ftp(address, offset, validator, timeout_s)
    if scheme in ("http", "https", "ftp"):
        return _open_http(address, offset, validator, timeout_s)
    raise UltronError(f"an address must start with http, https, ftp or file, or be a path; found {address!r}")


def _open_http(address: str, offset: int, validator: str, timeout_s: float) -> Reply:
    headers = {"User-Agent": f"ultron/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    try:
        # A new opener each time: it reads the proxy settings of this moment.
        response = urllib.request.build_opener().open(
            urllib.request.Request(address, headers=headers), timeout=timeout_s
        )
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise Gone(f"its certificate does not hold ({error.reason.verify_message})") from error
        raise Broken(str(getattr(error.reason, "strerror", None) or error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_reason(error)) from error
    return _http_reply(response, offset, address)


def _refusal(error: urllib.error.HTTPError) -> Broken | Gone | OutOfRange:
    """What an HTTP error code means."""
    answer = f"answered {error.code} {error.reason}".strip()
    if error.code == 416:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
        return OutOfRange(int(total[1]) if total else None)
    if error.code in PASSING_CODES:
        wait_s = error.headers.get("Retry-After", "")
        return Broken(answer, min(LONGEST_REFUSAL_S, float(wait_s)) if wait_s.isdigit() else 0.0)
    return Gone(answer)


def _http_reply(response: http.client.HTTPResponse, offset: int, address: str) -> Reply:
    headers = response.headers
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        response.close()
        raise Gone(
            "answered with a web page instead of the file (a login, a notice, or a page that asks for confirmation)"
        )
    encoding = headers.get("Content-Encoding", "identity").lower()
    # Some servers call a .tgz gzip-encoded; the bytes are the file's own all the same.
    if encoding not in ("identity", "") and not (
        encoding in ("gzip", "x-gzip") and urlsplit(address).path.endswith((".gz", ".tgz"))
    ):
        response.close()
        raise Gone(f"sends the file in content encoding {encoding}, which was not asked for")
    length = headers.get("Content-Length", "")
    start = 0
    n_bytes = int(length) if length.isdigit() else None
    if response.status == 206:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        if not place or int(place[1]) != offset:
            response.close()
            raise OutOfRange(None)
        start = offset
        if place[2].isdigit():
            n_bytes = int(place[2])
        elif n_bytes is not None:
            n_bytes += offset
    etag = headers.get("ETag", "")
    # A weak tag does not promise equal bytes; If-Range takes strong ones and dates only.
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")

    def read(n: int) -> bytes:
        try:
            return response.read1(n)  # what is there: read(n) would lose it if the rest does not come
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Broken(_reason(error)) from error

    return Reply(read=read, close=response.close, start=start, n_bytes=n_bytes, validator=validator)


def _open_ftp(address: str, offset: int, validator: str, timeout_s: float) -> Reply:
    parts = urlsplit(address)
    ftp = ftplib.FTP(timeout=timeout_s)
    try:
        ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        ftp.login(unquote(parts.username or "anonymous"), unquote(parts.password or "anonymous@"))
        ftp.voidcmd("TYPE I")
        path = unquote(parts.path)
        n_bytes = ftp.size(path)
        try:
            changed = ftp.sendcmd(f"MDTM {path}").partition(" ")[2].strip()
        except ftplib.error_perm:  # an old server without times
            changed = ""
        start = offset if offset and (not validator or validator == changed) else 0
        connection = ftp.transfercmd(f"RETR {path}", rest=start or None)
    except ftplib.error_perm as error:
        ftp.close()
        raise Gone(f"answered {error}") from error
    except (ftplib.Error, EOFError, OSError) as error:
        ftp.close()
        raise Broken(_reason(error)) from error

    def read(n: int) -> bytes:
        try:
            return connection.recv(n)
        except OSError as error:
            raise Broken(_reason(error)) from error

    def close() -> None:
        connection.close()
        ftp.close()

    return Reply(read=read, close=close, start=start, n_bytes=n_bytes, validator=changed)


def _open_file(address: str, offset: int, validator: str) -> Reply:
    path = Path(unquote(urlsplit(address).path) if address.startswith("file:") else address).expanduser()
    try:
        handle = open(path, "rb")  # noqa: SIM115  closed through the reply
    except OSError as error:
        raise Gone(error.strerror or str(error)) from error
    status = path.stat()
    changed = f"{status.st_mtime_ns}-{status.st_size}"
    start = offset if offset <= status.st_size and (not validator or validator == changed) else 0
    handle.seek(start)
    return Reply(read=handle.read, close=handle.close, start=start, n_bytes=status.st_size, validator=changed)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
