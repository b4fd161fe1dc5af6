"""What Kubernetes' Go types say beyond the schema: in which order JSON is written, and what is there unset.

In: the name of a definition (`io.k8s.api.core.v1.Pod`).  Out: its fields as Go declares them; which of them are present
in every object (`present`: structs that are no pointers, lists and maps that are written also without items); and the
JSON of a value as Go would write it (`go_json`).  The tables of protocol buffers tell most of it, `go_order.txt` where
the order is another than that of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from navarch.api.field_paths import sorted_set
from navarch.api.protobuf_fields import stated_fields
from navarch.records import frozen

# What definitions of Kubernetes' own kinds are called, before package and name.
_PREFIXES: Final = (
    "io.k8s.api.",
    "io.k8s.apimachinery.pkg.apis.",
    "io.k8s.apiextensions-apiserver.pkg.apis.",
    "io.k8s.kube-aggregator.pkg.apis.",
)
# Messages that are scalars in JSON.
_SCALARS: Final = frozenset(
    ("meta/v1.Time", "meta/v1.MicroTime", "api/resource.Quantity", "util/intstr.IntOrString", "runtime.RawExtension")
)
_ENTRY: Final = "meta/v1.ManagedFieldsEntry"


@frozen
class GoField:
    """`shape` is "" (one), "[]" or "{}"; `message` the message that it (or its items) is, empty for scalars, of which
    `type` is the letter; `is_time` that it is a time that is no pointer; `written` that also its zero is."""

    name: str
    shape: str
    message: str
    present: bool
    is_time: bool = False
    written: bool = False
    pointer: bool = False
    type: str = ""


def message_of_definition(definition: str) -> str:
    """The message behind a definition; empty where there is none."""
    for prefix in _PREFIXES:
        if definition.startswith(prefix):
            package, _, name = definition.removeprefix(prefix).rpartition(".")
            message = f"{package.replace('.', '/')}.{name}"
            return message if stated_fields(message) is not None else ""
    return ""


@cache
def struct(message: str) -> Mapping[str, GoField]:
    """The fields of a message, by name, in Go's order; none for what is no message."""
    stated = stated_fields(message)
    if stated is None:
        return {}
    numbered: list[tuple[int, GoField]] = []
    for entry in stated.split():
        name, _, rest = entry.partition("=")
        number, _, type_ = rest.partition(":")
        numbered.append((int(number), _field(name, type_)))
    fields = {field.name: field for _, field in sorted(numbered, key=lambda each: each[0])}
    order = _orders().get(message, ())
    declared = [name for name in order if name in fields]
    return {name: fields[name] for name in [*declared, *(name for name in fields if name not in declared)]}


@cache
def _members(message: str) -> Mapping[str, GoField]:
    """The fields of a message as JSON has them: those of structs that it embeds are its own."""
    found: dict[str, GoField] = {}
    for name, field in struct(message).items():
        found |= _members(field.message) if field.message and name[:1].isupper() else {name: field}
    return found


def _field(name: str, type_: str) -> GoField:
    written, type_ = type_.endswith("!"), type_.removesuffix("!")
    pointer, type_ = type_.startswith("*"), type_.removeprefix("*")
    shape = type_[:2] if type_[:2] in ("[]", "{}") else ""
    type_ = type_[len(shape) :].removeprefix("*")
    message = type_ if "/" in type_ and type_ not in _SCALARS else ""
    present = written if shape else bool(message) and not pointer
    is_time = not pointer and not shape and type_ in ("meta/v1.Time", "meta/v1.MicroTime")
    return GoField(name, shape, message, present, is_time, written, pointer, type_)


@cache
def _orders() -> Mapping[str, tuple[str, ...]]:
    lines = Path(__file__).with_name("go_order.txt").read_text().splitlines()
    return {name: tuple(names) for name, *names in (line.split() for line in lines if not line.startswith("#"))}


@cache
def present(definition: str) -> frozenset[str]:
    """The fields of a definition's type that are there whether or not somebody set them."""
    return frozenset(field.name for field in struct(message_of_definition(definition)).values() if field.present)


# What is written of a struct though nobody set it, where no check makes sure that somebody did: what is observed, and
# a few of what is wished for.
_OBSERVED: Final = ("Status", "Condition")
_WRITTEN_UNSET: Final = frozenset(
    (
        *("apiextensions/v1.CustomResourceDefinitionNames", "batch/v1.PodFailurePolicy"),
        *("autoscaling/v2.CrossVersionObjectReference", "autoscaling/v2.MetricIdentifier"),
        *("core/v1.AttachedVolume", "core/v1.ConfigMapNodeConfigSource", "core/v1.ContainerExtendedResourceRequest"),
        *("core/v1.ContainerStateRunning", "core/v1.ContainerStateTerminated", "core/v1.EventSeries"),
        *("core/v1.HTTPHeader", "core/v1.ISCSIPersistentVolumeSource", "core/v1.ISCSIVolumeSource"),
        *("core/v1.LinuxContainerUser", "core/v1.NodeAddress", "core/v1.NodeRuntimeHandler", "core/v1.NodeSystemInfo"),
        *("core/v1.PodVolumeHealth", "core/v1.PreferredSchedulingTerm", "core/v1.ProjectedVolumeSource"),
        *("core/v1.ResourceHealth", "core/v1.ScaleIOPersistentVolumeSource", "core/v1.ScaleIOVolumeSource"),
        *("core/v1.SleepAction", "core/v1.Sysctl", "events/v1.EventSeries", "resource/v1.AllocationResult"),
        *("storage/v1.TokenRequest", "storage/v1.VolumeError"),
    )
)
# A pod's conditions are its strategy's; the others are no parts of objects.
_LEFT_ALONE: Final = frozenset(("core/v1.PodCondition", "meta/v1.Status"))
_ZEROS: Final[Mapping[str, Any]] = {"s": "", "b": False, "i": 0, "f": 0, "api/resource.Quantity": "0"}


@cache
def unset(definition: str) -> tuple[tuple[str, Any], ...]:
    """What of a struct Go writes though nobody set it, each with what is written: texts, numbers, structs as their zero
    (to be copied), times, lists and pointers as null."""
    message = message_of_definition(definition)
    if (message not in _WRITTEN_UNSET and not message.endswith(_OBSERVED)) or message in _LEFT_ALONE:
        return ()
    return tuple(_written_unset(message))


def _written_unset(message: str) -> Iterator[tuple[str, Any]]:
    for name, field in _members(message).items():
        if field.is_time or (field.present and field.shape) or (field.written and field.pointer):
            yield name, None
        elif field.present:
            yield name, dict(_written_unset(field.message))
        elif field.written and field.type in _ZEROS:
            yield name, _ZEROS[field.type]


def go_value(value: Any, message: str) -> Any:
    """A value as Go writes it from memory: as `go_json`, with what is written though nobody set it."""
    if isinstance(value, list):
        return [go_value(item, message) for item in value]
    fields = _members(message)
    if not isinstance(value, dict) or not fields:
        return value
    out: dict[str, Any] = {}
    unsaid = dict(_written_unset(message))
    for name, field in fields.items():
        item = value.get(name)
        if item is None:
            if name in unsaid or (field.written and field.type == "runtime.RawExtension"):
                out[name] = unsaid.get(name)
        elif field.shape == "{}" and isinstance(item, dict):
            out[name] = {key: go_value(item[key], field.message) for key in sorted(item)}
        else:
            out[name] = go_value(item, field.message)
    return out


def go_json(value: Any, message: str) -> Any:
    """A value of a message in the order in which Go writes it: fields as declared, maps sorted."""
    if isinstance(value, list):
        return [go_json(item, message) for item in value]
    if not isinstance(value, dict):
        return value
    fields = struct(message)
    if not fields:
        return {name: go_json(value[name], "") for name in sorted(value)}
    out: dict[str, Any] = {}
    for name in [name for name in fields if name in value] + sorted(name for name in value if name not in fields):
        field, item = fields.get(name), value[name]
        if message == _ENTRY and name == "fieldsV1" and isinstance(item, dict):
            out[name] = sorted_set(item)
        elif field is not None and field.shape == "{}" and isinstance(item, dict):
            out[name] = {key: go_json(item[key], field.message) for key in sorted(item)}
        else:
            out[name] = go_json(item, field.message if field is not None else "")
    return out
