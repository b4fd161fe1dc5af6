"""Renews `src/navarch/api/go_order.txt` from Kubernetes' field tables (`fields.json`).

    python tools/pack_go_order.py ../shared/protobuf/fields.json

The tables list a message's fields as Kubernetes' Go types declare them, which is the order in which it writes JSON.
Only messages whose order is not that of their numbers are listed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pack_protobuf import package_of

TABLE = Path(__file__).resolve().parent.parent / "src" / "navarch" / "api" / "go_order.txt"
COMMENT = "# Messages of Kubernetes v1.36 whose fields Go declares in another order than that of their numbers.\n"


def main() -> None:
    lines = []
    for full, messages in json.loads(Path(sys.argv[1]).read_text()).items():
        for message, fields in messages.items():
            if package_of(full) and fields != sorted(fields, key=lambda field: field[1]):
                lines.append(f"{package_of(full)}.{message} {' '.join(field[0] for field in fields)}\n")
    TABLE.write_text(COMMENT + "".join(sorted(lines)))


if __name__ == "__main__":
    main()
