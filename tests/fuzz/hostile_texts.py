"""Hostile texts, each thought out: JSON, lines of JSON, TOML, tables and lists. All are made of a sound file."""

import json
import re
from collections.abc import Callable

Files = dict[str, bytes]  # what is hostile -> the file
ODD_TEXTS = {
    "a way out": "../../../etc/passwd",
    "an absolute path": "/dev/zero",
    "a screen's commands": "\x1b[2J\r\n\x07",
    "a NUL": "a\0b",
    "half a character": "\ud800",
    "a megabyte": "x" * (1 << 20),
    "nothing": "",
    "right to left": "\u202egpj.exe",
}
ODD_NUMBERS = {
    "below 0": "-1",
    "infinite": "1e999",
    "400 digits": "9" * 400,
    "not a number": "NaN",
    "2 to the 63": str(1 << 63),
}


def mapped(value: object, change: Callable[[object], object]) -> object:
    """JSON with every value that is no list and no object replaced."""
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    return [mapped(part, change) for part in value] if isinstance(value, list) else change(value)


def hostile_text(sound: bytes) -> Files:
    """What is hostile to any reader of text."""
    return {
        "empty": b"",
        "blank": b" \r\n\t\n",
        "UTF-16": sound.decode().encode("utf-16"),
        "UTF-8 with a mark": b"\xef\xbb\xbf" + sound,
        "Latin-1": "é\n".encode("latin-1") + sound,
        "a NUL before": b"\0" + sound,
        "a NUL behind": sound + b"\0",
        "cut in half": sound[: len(sound) // 2],
        "cut in a character": sound + b"\xc3",
        "twice": sound + sound,
        "no line's end": sound.replace(b"\n", b""),
        "old Mac lines": sound.replace(b"\n", b"\r"),
        "a megabyte of one letter": b"a" * (1 << 20),
        "a web page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "an overlong slash": sound + b"\xc0\xaf",
        "half a surrogate": sound + b"\xed\xa0\x80",
    }


def hostile_json(sound: bytes) -> Files:
    """What is hostile to a reader of JSON."""
    root = json.loads(sound)
    files = hostile_text(sound) | {
        f"the whole is {text[:12]}": text.encode()
        for text in ("null", "[]", "{}", "7", '"x"', "true", "[[]]", '[{"a": 1}]', '{"": null}')
    }
    files |= {
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "deep and whole": b"[" * 90 + b"]" * 90,
        "a comment": sound + b" // x",
        "a last comma": sound.rstrip()[:-1] + b",}",
        "single quotes": sound.replace(b'"', b"'"),
        "a key twice": sound.rstrip()[:-1] + b"," + sound.lstrip()[1:] if sound.startswith(b"{") else b'{"a":1,"a":2}',
        "all keys renamed": re.sub(rb'"(\w+)":', rb'"\1x":', sound),
        "lists ten thousand times as long": json.dumps(_lengthened(root)).encode(),
    }
    changes: dict[str, Callable[[object], object]] = {
        "null": lambda value: None,
        "true": lambda value: True,
        "a list of itself": lambda value: [value],
        "an object": lambda value: {"a": value},
        "text": str,
        "a fraction": lambda value: 0.5,
    }
    files |= {f"every value {name}": json.dumps(mapped(root, change)).encode() for name, change in changes.items()}
    for name, text in ODD_TEXTS.items():
        changed = mapped(root, lambda value, text=text: text if isinstance(value, str) else value)
        files[f"every text {name}"] = json.dumps(changed).encode()
    for name, number in ODD_NUMBERS.items():
        files[f"every number {name}"] = re.sub(rb"(?<=[:\[ ,])-?\d[\d.e+-]*(?=[,\]} ])", number.encode(), sound)
    return files


def _lengthened(value: object) -> object:
    if isinstance(value, dict):
        return {key: _lengthened(part) for key, part in value.items()}
    if isinstance(value, list):
        return value * (10_000 // len(value)) if value and not isinstance(value[0], (dict, list)) else value
    return value


def hostile_lines(sound: bytes) -> Files:
    """What is hostile to a reader of lines of JSON: a hostile line between sound ones."""
    lines = sound.splitlines(keepends=True)
    return hostile_text(sound) | {
        f"a line: {name}": lines[0] + content.replace(b"\n", b" ") + b"\n" + b"".join(lines[1:])
        for name, content in hostile_json(lines[0].strip()).items()
    }


def hostile_toml(sound: bytes) -> Files:
    """What is hostile to a reader of TOML."""
    first = sound.partition(b"=")[0].strip()
    files = hostile_text(sound) | {
        "deep lists": b"a = " + b"[" * 10_000,
        "deep tables": b".".join([b"a"] * 10_000) + b" = 1",
        "deep inline tables": b"a = " + b"{a = " * 5_000,
        "a key twice": sound + b"\n" + first + b" = 1\n" + first + b" = 2\n",
        "a table twice": sound + b"\n[zz]\n[zz]\n",
        "an unknown key": b"zz_unknown = 1\n" + sound,
        "a key of a megabyte": b"x" * (1 << 20) + b" = 1\n",
        "a key with a screen's commands": b'"\\u001b[2J\\n" = 1\n' + sound,
        "an open text": sound + b'\nz = "x',
        "an open long text": sound + b'\nz = """x',
        "a date for every number": re.sub(rb"(?<== )[\d.e-]+", b"2026-01-01T00:00:00Z", sound),
        "a list for every number": re.sub(rb"(?<== )[\d.e-]+", b"[1, 2]", sound),
        "text for every number": re.sub(rb"(?<== )[\d.e-]+", b'"1"', sound),
        "true for every number": re.sub(rb"(?<== )[\d.e-]+", b"true", sound),
        "a table for every text": re.sub(rb'(?<== )"[^"\n]*"', b"{ a = 1 }", sound),
        "a number for every text": re.sub(rb'"[^"\n]*"', b"7", sound),
        "lists of tables": sound.replace(b"[", b"[[").replace(b"]", b"]]"),
    }
    files |= {
        f"every number {name}": re.sub(rb"(?<== )[\d.e-]+", number.lower().replace("1e999", "inf").encode(), sound)
        for name, number in ODD_NUMBERS.items()
    }
    for name, text in ODD_TEXTS.items():
        quoted = json.dumps(text if name != "half a character" else "\\ud800")
        files[f"every text {name}"] = re.sub(rb'"[^"\n]*"', lambda _, quoted=quoted: quoted.encode(), sound)
    return files


def hostile_table(sound: bytes) -> Files:
    """What is hostile to a reader of CSV, and of lists with a name per line."""
    header, *rows = sound.split(b"\n")
    last = rows[0] if rows and rows[0] else header
    files = hostile_text(sound) | {
        "a header alone": header,
        "no header": b"\n".join(rows),
        "the header twice": header + b"\n" + sound,
        "a column twice": header + b"," + header + b"\n" + last + b"," + last,
        "columns turned round": b",".join(reversed(header.split(b","))) + b"\n" + b"\n".join(rows),
        "too many fields": sound + b"\n" + last + b",1,2,3",
        "too few fields": sound + b"\n" + last.partition(b",")[0],
        "an open quote": sound + b'\n"x,y',
        "a quote in the midst": sound + b'\nx"y"z,1',
        "a field of a megabyte": header + b"\n" + b"x" * (1 << 20),
        "a hundred thousand columns": header + b"," * 100_000 + b"\n" + last,
        "a hundred thousand lines": header + (b"\n" + last) * 20_000,
        "semicolons and commas": sound.replace(b",", b";,"),
        "tabs": sound.replace(b",", b"\t"),
        "a formula": sound + b"\n=cmd|x," + last,
        "digits of another script": re.sub(rb"\d", "\u0663".encode(), sound),
        "every field in quotes": re.sub(rb"[^,\n]+", rb'"\g<0>"', sound),
    }
    for name, text in ODD_TEXTS.items():
        odd = text.encode("utf-8", "surrogatepass")
        files[f"every field below the header {name}"] = (
            header + b"\n" + re.sub(rb"[^,\n]+", lambda _, odd=odd: odd, b"\n".join(rows[:2]))
        )
    for name, number in ODD_NUMBERS.items():
        files[f"every number {name}"] = header + b"\n" + re.sub(rb"\d[\d.]*", number.encode(), b"\n".join(rows))
    return files
