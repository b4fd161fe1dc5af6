"""Renews `src/navarch/api/protobuf_fields.txt` from Kubernetes' field tables (`fields.json`).

    python tools/pack_protobuf.py ../shared/protobuf/fields.json

What the tables do not say (which fields JSON writes although they are zero, which it names otherwise or states as if
they were the outer message's) is kept from the file that there is. A message that is new takes it from the one of the
same name in another version of its group; where there is none, its fields are as they are named, and zeros are kept.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "src" / "navarch" / "api" / "protobuf_fields.txt"
PREFIXES = (
    "k8s.io.api.",
    "k8s.io.apiextensions_apiserver.pkg.apis.",
    "k8s.io.apimachinery.pkg.apis.",
    "k8s.io.apimachinery.pkg.",
    "k8s.io.kube_aggregator.pkg.apis.",
)
SIMPLE = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "double": "f", "bytes": "y"}

# Field number to name and type, as the file states them.
Fields = dict[int, tuple[str, str]]
Tables = dict[str, dict[str, list[list[object]]]]


def package_of(name: str) -> str:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).replace(".", "/")
    return ""


def known_messages() -> tuple[list[str], dict[str, Fields]]:
    comments, messages = [], {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("#"):
            comments.append(line)
            continue
        name, _, stated = line.partition(" ")
        fields: Fields = {}
        for entry in stated.split():
            field, _, rest = entry.partition("=")
            number, _, type_ = rest.partition(":")
            fields[int(number)] = (field, type_)
        messages[name] = fields
    return comments, messages


def type_of(stated: str, label: str, package: str, tables: Tables) -> str:
    if label == "map":
        return "{}" + type_of(re.sub(r"map<\w+, \.?(.*)>", r"\1", stated), "", package, tables)
    if label == "repeated":
        return "[]" + type_of(stated, "", package, tables)
    if stated in SIMPLE:
        return SIMPLE[stated]
    owner, _, name = stated.rpartition(".")
    found = tables[owner or package][name]
    if len(found) == 1 and found[0][0] == "items" and found[0][3] == "repeated" and not owner:
        return "items:" + type_of(str(found[0][2]), "", package, tables)
    return f"{package_of(owner or package)}.{name}"


def like(name: str, messages: dict[str, Fields]) -> Fields:
    """The message of the same name in another version of the group, or in a group where it was before."""
    group, message = name.split("/")[0], name.rpartition(".")[2]
    others = [other for other in sorted(messages) if other.rpartition(".")[2] == message]
    same = [other for other in others if other.startswith(f"{group}/")]
    return messages[(same or others)[0]] if others else {}


def main() -> None:
    tables: Tables = json.loads(Path(sys.argv[1]).read_text())
    comments, messages = known_messages()
    before = dict(messages)
    for full, stated in tables.items():
        package = package_of(full)
        if not package:
            continue
        for message, fields in stated.items():
            name = f"{package}.{message}"
            known, model = before.get(name), like(name, before)
            if known is None:
                messages[name] = {}
            for field, number, type_, label in fields:
                assert isinstance(number, int)
                if known is not None and number in known:
                    continue
                wire = type_of(str(type_), str(label), full, tables)
                bare = wire.rpartition(".")[2]
                twin = next((each for each in model.values() if each[0].lower() == str(field).lower()), None)
                if twin is not None and twin[1].strip("*!").rpartition(".")[2] == bare:
                    flags = ("*" if twin[1].startswith("*") else "", "!" if twin[1].endswith("!") else "")
                    messages[name][number] = (twin[0], f"{flags[0]}{wire}{flags[1]}")
                else:
                    messages[name][number] = (str(field), wire if wire[:2] in ("[]", "{}") else f"*{wire}")
    lines = [
        " ".join([name, *(f"{field}={number}:{type_}" for number, (field, type_) in sorted(fields.items()))])
        for name, fields in sorted(messages.items())
    ]
    TABLE.write_text("\n".join([*comments, *lines]) + "\n")


if __name__ == "__main__":
    main()
