"""The files of other tools that a result was made of."""

from dataclasses import dataclass
from typing import Literal, Required, TypedDict

from ultron_cli.retrieval.origin.values import Json, of_kind


class StoredImport(TypedDict, total=False):
    """An imported file, as files store it."""

    path: Required[str]
    sha256: str
    format: str
    order: str
    n_first: int | None


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """A file of another tool that descriptors or a ranking were made of, or that ordered its first photos anew."""

    path: str
    sha256: str
    format: str  # of RANK_FORMATS or DESCRIPTOR_FORMATS in exchange/, or an import path
    order: Literal["score", "file"] = "score"  # by which photos stand
    n_first: int | None = None  # photos of a ranking that it ordered, at most; None: it is the whole ranking
    code_sha256: str | None = None  # of a format by import path

    def __str__(self) -> str:
        first = "" if self.n_first is None else f", the first {self.n_first:,} of a ranking"
        return f"{self.path} ({self.format}{first}{', in the order of its lines' if self.order == 'file' else ''})"

    def to_json(self) -> dict[str, object]:
        """As files store it."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "format": self.format,
            "order": self.order,
            **({} if self.n_first is None else {"n_first": self.n_first}),
            **({} if self.code_sha256 is None else {"code_sha256": self.code_sha256}),
        }

    @classmethod
    def from_json(cls, value: Json) -> "ImportRecord":
        """From a file."""
        return cls(
            path=str(value.get("path")),
            sha256=str(value.get("sha256", "")),
            format=str(value.get("format")),
            order="file" if value.get("order") == "file" else "score",
            n_first=of_kind(value.get("n_first"), int),
            code_sha256=of_kind(value.get("code_sha256"), str),
        )
