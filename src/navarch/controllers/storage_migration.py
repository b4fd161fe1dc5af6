"""Storage migrations: every object of a resource written anew, so that it is stored in the version that is stored now.

In: StorageVersionMigrations. Out: an apply of nothing to each object, by which the server stores it again where its
bytes are of another version; how it went as conditions; of a custom resource's definition `storedVersions` without the
versions that are gone from the store.
Invariant: an object that changes or goes meanwhile is left alone: who changed it has stored it in the new version.
"""

from __future__ import annotations

import copy
from typing import ClassVar, Final

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, name_of, namespace_of, uid_of
from navarch.api.time import format_time
from navarch.client.informer import Informer
from navarch.client.resources import CUSTOM_RESOURCE_DEFINITIONS, STORAGE_VERSION_MIGRATIONS
from navarch.controllers.base import Context, Requeue
from navarch.controllers.discovery import Discovery
from navarch.controllers.optional import OptionalController
from navarch.kinds.core.pod_state import condition_of

_MANAGER: Final = "storage-version-migrator-controller"
_RUNNER: Final = "migration-runner-controller"
_CHUNK: Final = 500
_SUCCEEDED: Final = ("Succeeded", "StorageVersionMigrationSucceeded", "")


class StorageMigrationController(OptionalController):
    name: ClassVar[str] = "storage-version-migrator"
    needs = STORAGE_VERSION_MIGRATIONS
    # One at a time: two migrations of one resource would only be in each other's way.
    workers = 1

    _served: Resource
    _migrations: Informer

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._discovery = Discovery(context.client)

    def follow(self, served: Resource) -> None:
        self._served = served
        self._migrations = self.watch_primary(served)

    async def reconcile(self, key: Key) -> Requeue | None:
        migration = self._migrations.get(*key)
        if migration is None:
            return None
        migration = self.newest(self._served, migration)
        if not (_is(migration, "Succeeded") or _is(migration, "Failed")):
            migration = await self._migrate(migration)
        if condition_of(migration, "Running") is not None:
            await self._definition_told(migration, is_running=False)
            status = migration["status"]
            left = [each for each in status["conditions"] if each["type"] != "Running"]
            await self.write_status(self._served, migration, {**status, "conditions": left})
        return None

    async def _migrate(self, migration: Obj) -> Obj:
        resource = await self._resource(migration)
        if resource is None:
            return await self._end(migration, _failed("resource does not exist in discovery"))
        migration = await self._begin(migration, resource)
        try:
            await self._store_anew(resource)
        except StatusError:
            return await self._end(migration, _failed("migration encountered unhandled error"))
        return await self._end(migration, _SUCCEEDED)

    async def _resource(self, migration: Obj) -> Resource | None:
        wanted = migration["spec"]["resource"]
        for served in await self._discovery.served():
            resource = served.resource
            if (resource.group, resource.plural) == (wanted.get("group") or "", wanted["resource"]):
                return resource if {"list", "patch"} <= served.verbs else None
        return None

    async def _begin(self, migration: Obj, resource: Resource) -> Obj:
        status = dict(migration.get("status") or {})
        if not status.get("resourceVersion"):
            status["resourceVersion"] = (await self.client.list(resource, limit=1)).resource_version
            migration = await self.write_status(self._served, migration, status)
        if not _is(migration, "Running"):
            await self._definition_told(migration, is_running=True)
            running = self._condition("Running", "MigrationRunning", "The migration is running")
            status["conditions"] = [*(status.get("conditions") or ()), running]
            migration = await self.write_status(self._served, migration, status)
        return migration

    async def _store_anew(self, resource: Resource) -> None:
        token = ""
        while True:
            listed = await self.client.list(resource, limit=_CHUNK, continue_token=token)
            for obj in listed.items:
                await self._touch(resource, obj)
            token = listed.continue_token
            if not token:
                return

    async def _touch(self, resource: Resource, obj: Obj) -> None:
        metadata = {
            "name": name_of(obj),
            "uid": uid_of(obj),
            "resourceVersion": obj["metadata"]["resourceVersion"],
        }
        if resource.namespaced:
            metadata["namespace"] = namespace_of(obj)
        nothing = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        try:
            await self.client.apply(resource, nothing, field_manager=_MANAGER)
        except StatusError as error:
            if error.code != 409:
                raise

    async def _end(self, migration: Obj, told: tuple[str, str, str]) -> Obj:
        status = copy.deepcopy(migration.get("status") or {})
        # A status without a revision is not valid, and what does not exist has none of its own.
        status.setdefault("resourceVersion", migration["metadata"]["resourceVersion"])
        conditions = status.setdefault("conditions", [])
        for condition in conditions:
            if condition["type"] == "Running":
                condition["status"] = "False"
        conditions.append(self._condition(*told))
        return await self.write_status(self._served, migration, status)

    async def _definition_told(self, migration: Obj, *, is_running: bool) -> None:
        """A custom resource's definition says that its objects are on the move, and which versions are stored then."""
        wanted = migration["spec"]["resource"]
        name = f"{wanted['resource']}.{wanted.get('group') or ''}"
        definition = await self.client.find(CUSTOM_RESOURCE_DEFINITIONS, name)
        if definition is None:
            return
        status: Obj = {}
        generation = definition["metadata"]["generation"]
        if is_running:
            told = ("True", "MigrationRunning", f"Migration {name_of(migration)} is running")
        elif not _is(migration, "Succeeded"):
            told = ("False", "MigrationFailed", "The migration has failed")
        elif (condition_of(definition, "StorageMigrating") or {}).get("observedGeneration") == generation:
            status["storedVersions"] = [each["name"] for each in definition["spec"]["versions"] if each["storage"]]
            message = "The migration has succeeded and the stored versions have been updated"
            told = ("False", "MigrationSucceeded", message)
        else:
            message = "The migration has succeeded but the stored versions have not been updated due to a generation "
            told = ("False", "MigrationSucceeded", message + "mismatch")
        condition = self._condition("StorageMigrating", told[1], told[2])
        status["conditions"] = [{**condition, "status": told[0], "observedGeneration": generation}]
        applied = {
            "apiVersion": CUSTOM_RESOURCE_DEFINITIONS.api_version,
            "kind": CUSTOM_RESOURCE_DEFINITIONS.kind,
            "metadata": {"name": name},
            "status": status,
        }
        await self.client.apply(
            CUSTOM_RESOURCE_DEFINITIONS, applied, field_manager=_RUNNER, force=True, subresource="status"
        )

    def _condition(self, kind: str, reason: str, message: str) -> Obj:
        return {
            "type": kind,
            "status": "True",
            "lastTransitionTime": format_time(self.clock.now()),
            "reason": reason,
            "message": message,
        }


def _failed(message: str) -> tuple[str, str, str]:
    return ("Failed", "StorageVersionMigrationFailed", message)


def _is(obj: Obj, kind: str) -> bool:
    return (condition_of(obj, kind) or {}).get("status") == "True"
