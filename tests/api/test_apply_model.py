"""Server-side apply against a model of ownership: who owns which key of a map, after whatever clients did in whichever
order, and what is left of the map."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from navarch.api import schema
from navarch.api.apply import apply, update_managed_fields
from navarch.api.errors import StatusError

NODE = schema.load().compile("io.k8s.api.core.v1.ConfigMap").root
KEYS, VALUES = st.sampled_from("abcd"), st.sampled_from("xy")
# Somebody always owns something, or ownership would be forgotten.
ANCHOR = {"anchor": "0"}
NOW = "2026-01-01T00:00:00Z"

Who = tuple[str, str]


@dataclass
class Model:
    """The map, and the keys that each manager owns."""

    data: dict[str, str] = field(default_factory=lambda: dict(ANCHOR))
    owned: dict[Who, set[str]] = field(default_factory=lambda: {("creator", "Update"): {"anchor"}})

    def apply(self, manager: str, wanted: dict[str, str], *, force: bool) -> bool:
        """Whether it was done: without force nobody takes what others own."""
        me = (manager, "Apply")
        changed = {key for key, value in wanted.items() if self.data.get(key) != value}
        if not force and any(keys & changed for who, keys in self.owned.items() if who != me):
            return False
        before = self.owned.pop(me, set())
        self._lose(changed)
        kept = set(wanted).union(*self.owned.values())
        for key in before - kept:
            self.data.pop(key, None)
        self.data.update(wanted)
        self._own(me, set(wanted))
        return True

    def update(self, manager: str, wanted: dict[str, str]) -> None:
        data = {**ANCHOR, **wanted}
        changed = {key for key, value in data.items() if self.data.get(key) != value}
        self._lose(changed | (set(self.data) - set(data)))
        self.data = data
        me = (manager, "Update")
        self._own(me, self.owned.get(me, set()) | changed)

    def _lose(self, keys: set[str]) -> None:
        self.owned = {who: rest for who, owned in self.owned.items() if (rest := owned - keys)}

    def _own(self, who: Who, keys: set[str]) -> None:
        if keys:
            self.owned[who] = keys


def config_map(data: dict[str, str]) -> Any:
    obj: Any = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}}
    return obj | {"data": data} if data else obj


def owners(obj: Any) -> dict[Who, set[str]]:
    """What managedFields say, as the model says it."""
    return {
        (entry["manager"], entry["operation"]): {
            key[2:] for key in entry["fieldsV1"].get("f:data", {}) if key.startswith("f:")
        }
        for entry in obj["metadata"]["managedFields"]
    }


MANAGERS = st.sampled_from(["one", "two", "three"])
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), MANAGERS, st.dictionaries(KEYS, VALUES, max_size=3), st.booleans()),
        st.tuples(st.just("update"), MANAGERS, st.dictionaries(KEYS, VALUES, max_size=3), st.just(True)),
    ),
    max_size=12,
)


@given(ACTS)
def test_everybody_owns_what_the_model_says_and_nothing_else_is_there(acts: list[Any]) -> None:
    model, obj = Model(), config_map(ANCHOR)
    update_managed_fields(None, obj, NODE, manager="creator", api_version="v1", now=NOW)
    for act, manager, wanted, force in acts:
        if act == "update":
            new = copy.deepcopy(obj)
            new["data"] = {**ANCHOR, **wanted}
            update_managed_fields(obj, new, NODE, manager=manager, api_version="v1", now=NOW)
            model.update(manager, wanted)
            obj = new
        else:
            try:
                obj = apply(obj, config_map(wanted), NODE, manager=manager, force=force, api_version="v1", now=NOW)
                done = True
            except StatusError:
                done = False
            assert done == model.apply(manager, wanted, force=force)
        assert obj["data"] == model.data
        assert owners(obj) == model.owned


@given(ACTS)
def test_who_applies_the_same_twice_writes_the_second_time_nothing(acts: list[Any]) -> None:
    obj = config_map(ANCHOR)
    update_managed_fields(None, obj, NODE, manager="creator", api_version="v1", now=NOW)
    for _, manager, wanted, _ in acts:
        for _ in range(2):
            before = obj
            obj = apply(obj, config_map(wanted), NODE, manager=manager, force=True, api_version="v1", now=NOW)
        assert obj == before
