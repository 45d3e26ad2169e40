"""The genotype of a high-order group attention: which operations its graph has, as data and as text.

Text: nodes separated by `/`, a node's edges by `,`, an edge `OPERATION:INPUT`. Input 0 is the node's own group of
channels, input j > 0 the output of node j. The published one is in PUBLISHED; no character of it needs quoting in a
shell.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.files import write_text
from ultron_cli.schema.texts import read_text

OPERATIONS = ("none", "skip", "sep", "dil", "sep_spatial", "dil_spatial", "se", "se_max", "cbam")
"""In the order of the authors' search (github.com/btma48/AutoLA); sep, dil: separable and dilated 3x3 convolutions."""

AUTHORS_NAMES = {
    "skip_connect": "skip",
    "sep_conv_3x3": "sep",
    "dil_conv_3x3": "dil",
    "sep_conv_3x3_spatial": "sep_spatial",
    "dil_conv_3x3_spatial": "dil_spatial",
    "SE": "se",
    "SE_A_M": "se_max",
    "CBAM": "cbam",
}

N_NODES = 4  # as many as groups of channels

PUBLISHED = "skip:0/sep_spatial:0,sep:1/cbam:0,skip:2,sep:1/sep:0,skip:1,sep:3,dil:2"
"""Ma et al., NeurIPS 2020: found on CIFAR-10."""


class Edge(NamedTuple):
    """One operation on one input of a node."""

    operation: str
    source: int


@dataclass(frozen=True)
class Genotype:
    """Edges of nodes 1 to 4. Raises UltronError, naming the node, unless every node has an edge and sources come before
    their node."""

    nodes: tuple[tuple[Edge, ...], ...]

    def __post_init__(self) -> None:
        if len(self.nodes) != N_NODES:
            raise UltronError(
                f"a genotype has {N_NODES} nodes, with / between; found {len(self.nodes)} (the published one: "
                f"{PUBLISHED})"
            )
        for number, edges in enumerate(self.nodes, start=1):
            if not edges:
                raise UltronError(f"genotype: node {number} has no edge; give it at least one, such as skip:0")
            for operation, source in edges:
                if operation not in OPERATIONS:
                    known = ", ".join(OPERATIONS)
                    raise UltronError(
                        f"genotype: node {number} has an unknown operation "
                        f"{operation!r}{nearest_names(operation, OPERATIONS)} (known: {known})"
                    )
                if not 0 <= source < number:
                    raise UltronError(
                        f"genotype: node {number} takes input 0 (its group) or the nodes before it, 0 to "
                        f"{number - 1}; found {source}"
                    )

    @property
    def text(self) -> str:
        """As parse_genotype reads it."""
        return "/".join(",".join(f"{operation}:{source}" for operation, source in edges) for edges in self.nodes)


def parse_genotype(text: str) -> Genotype:
    """Reads the text form; the authors' names of operations (sep_conv_3x3, ...) are understood too. Raises
    UltronError."""
    nodes = []
    for number, part in enumerate(text.strip().split("/"), start=1):
        edges = []
        for item in filter(None, (piece.strip() for piece in part.split(","))):
            operation, colon, source = item.partition(":")
            if not colon or not source.strip().isdecimal():
                raise UltronError(f"genotype: an edge is OPERATION:INPUT (sep:0); found {item!r} in node {number}")
            operation = operation.strip()
            edges.append(Edge(AUTHORS_NAMES.get(operation, operation), int(source)))
        nodes.append(tuple(edges))
    return Genotype(tuple(nodes))


def save_genotype(path: Path, genotype: Genotype, comment: str = "") -> None:
    """Writes the text form on one line, after `comment` as lines that begin with #."""
    write_text(path, "".join(f"# {line}\n" for line in comment.splitlines()) + genotype.text + "\n")


def load_genotype(path: Path) -> Genotype:
    """Reads a file of save_genotype. Raises UltronError if it is absent or holds anything else."""
    lines = [line.strip() for line in read_text(path, "genotype", most_bytes=1 << 20).splitlines()]
    content = [line for line in lines if line and not line.startswith("#")]
    if len(content) != 1:
        raise UltronError(
            f"{path} must hold one genotype on one line, found {len(content)}; the published one is {PUBLISHED}"
        )
    return parse_genotype(content[0])
