"""Requests and photos for the tests of the page's server."""

import http.client
import io
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ultron_cli.serve.server import RetrievalServer

EVIL = "<img src=x onerror=document.title='broken'>"
Ask = Callable[..., tuple[int, Any]]


def raw(server: RetrievalServer, text: bytes) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of a request written byte by byte."""
    with socket.create_connection(server.server_address[:2], timeout=20) as connection:
        connection.sendall(text)
        reply = http.client.HTTPResponse(connection, method=text.split(b" ")[0].decode())
        reply.begin()
        return reply.status, dict(reply.getheaders()), reply.read()


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(
        buffer, "JPEG", quality=60
    )
    return buffer.getvalue()


def jpeg_of_many_scans(width: int, height: int, n_scans: int) -> bytes:
    """A JPEG whose last pass over all pixels is repeated: 100 bytes each, and decoding takes as long as for a photo."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last_scan * n_scans + content[-2:]


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises that many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def pairs(photos: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    return [(photo["rank"], photo["name"], photo["score"]) for photo in photos]
