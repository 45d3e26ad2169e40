"""Lists of landmarks and photos that are to be left out."""

from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.schema.tables import csv_lines

COLUMNS = ("landmark_id", "landmark", "id", "photo")  # of an exclusion list in CSV, the first that is there


def read_exclusions(path: Path) -> set[str]:
    """Landmarks, photo ids or relative paths, one per line, or in the first known column of a CSV. Raises UltronError
    if there are none."""
    lines = csv_lines(
        path, "the exclusion list", if_absent="check `exclude`", if_unreadable="give one landmark or photo per line"
    )
    rows = [row for _, row in lines if row[0].strip() and not row[0].startswith("#")]
    header = [cell.strip() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in COLUMNS if name in header), None)
    entries = {row[column or 0].strip() for row in rows[column is not None :] if len(row) > (column or 0)}
    if not entries:
        raise UltronError(
            f"{path} names no landmark and no photo; give one per line, or a CSV with a column {' or '.join(COLUMNS)}"
        )
    return entries
