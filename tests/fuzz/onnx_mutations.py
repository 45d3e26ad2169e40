"""Damages networks in ONNX, field by field, so that the damage gets past the parser."""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.fuzz.mutations import NUMBERS, mutate_bytes
from tests.fuzz.structures import NAMES

if TYPE_CHECKING:
    from google.protobuf.message import Message

OPERATORS = ["Loop", "If", "Scan", "ConstantOfShape", "Expand", "Resize", "Reshape", "Cast", "Softmax", "x"]


def mutate_onnx(data: bytes, draws: random.Random) -> bytes:
    """A network of which one to three fields have other values, or parts are left out or stand twice."""
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:  # of a file that other damage has gone through
        return mutate_bytes(data, draws)
    for _ in range(draws.choice((1, 1, 2, 3))):
        message = draws.choice(list(_messages(model)))
        filled = message.ListFields()
        if filled:
            _change(message, draws.choice(filled)[0].name, draws)
    return model.SerializeToString()


def _messages(message: "Message") -> "Iterator[Message]":
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from _messages(part)


def _change(message: "Message", name: str, draws: random.Random) -> None:
    field = message.DESCRIPTOR.fields_by_name[name]
    values = getattr(message, name)
    if draws.random() < 0.2:
        message.ClearField(name)
    elif field.is_repeated:
        place = draws.randrange(len(values))
        if field.message_type is not None:
            values.add().CopyFrom(values[place])
        elif draws.random() < 0.3:
            values.append(values[place])
        else:
            values[place] = _another(values[place], draws)
    elif field.message_type is None:
        try:
            setattr(message, name, _another(values, draws))
        except ValueError:  # a number that the field cannot hold
            message.ClearField(name)


def _another(value: object, draws: random.Random) -> object:
    if isinstance(value, bytes):
        return mutate_bytes(value, draws)
    if isinstance(value, str):
        return draws.choice([*OPERATORS, *NAMES, value + "x", "axes", "factors", "d"])
    if isinstance(value, float):
        return draws.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
    number = draws.choice([*NUMBERS, int(str(value)) + 1, int(str(value)) - 1, 1, 2, 7, 9])
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
