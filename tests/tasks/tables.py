"""Writes the data files that the tests read."""

import json


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        cut = "," if path.suffix == ".csv" else "\t"
        lines = [cut.join(rows[0]), *(cut.join(str(v) for v in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path
