"""Admission policies through a real API server: who is refused, warned, changed, and in which words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.resources import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, VALIDATING_ADMISSION_POLICIES
from navarch.client.transport import Request
from navarch.testing.embedded import ADMIN, EmbeddedCluster

JANE = User("jane", ("system:authenticated",))
GROUP = "admissionregistration.k8s.io/v1"
CONFIG_MAP_WRITES = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE", "UPDATE"],
    "resources": ["configmaps"],
}


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(controllers=False) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: EmbeddedCluster) -> Client:
    return cluster.client


async def post(cluster: EmbeddedCluster, path: str, obj: Obj, user: User = ADMIN) -> tuple[int, Obj, list[str]]:
    """Status, body and warnings."""
    headers = {"content-type": "application/json"}
    response = await cluster.server.handle(Request("POST", path, [], headers, orjson.dumps(obj)), user)
    warnings = [value for name, value in response.headers.items() if name.lower() == "warning"]
    return response.status, orjson.loads(response.body), warnings


def config_map(name: str = "cm", **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def allow(client: Client, user: User, *rules: Obj) -> None:
    """In all namespaces."""
    role = {"metadata": {"name": user.name}, "rules": list(rules)}
    bound = {
        "metadata": {"name": user.name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user.name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.name}],
    }
    await client.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", body=role)
    await client.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body=bound)


async def policy(
    client: Client, name: str = "p", *, rules: list[Obj] | None = None, bind: Obj | None = None, **spec: Any
) -> None:
    """A validating policy for ConfigMaps, bound so that it denies."""
    body = {"matchConstraints": {"resourceRules": rules or [CONFIG_MAP_WRITES]}, **spec}
    path = f"/apis/{GROUP}/validatingadmissionpolicies"
    await client.request("POST", path, body={"metadata": {"name": name}, "spec": body})
    binding = {"policyName": name, "validationActions": ["Deny"], **(bind or {})}
    await client.request("POST", f"{path[:-3]}ybindings", body={"metadata": {"name": name}, "spec": binding})


async def mutating(
    client: Client, name: str, *mutations: tuple[str, str], bind: Obj | None = None, **spec: Any
) -> None:
    fields = {"JSONPatch": "jsonPatch", "ApplyConfiguration": "applyConfiguration"}
    stated = [{"patchType": kind, fields[kind]: {"expression": text}} for kind, text in mutations]
    body = {
        "matchConstraints": {"resourceRules": [CONFIG_MAP_WRITES]},
        "reinvocationPolicy": "Never",
        "mutations": stated,
        **spec,
    }
    path = f"/apis/{GROUP}/mutatingadmissionpolicies"
    await client.request("POST", path, body={"metadata": {"name": name}, "spec": body})
    binding = {"policyName": name, **(bind or {})}
    await client.request("POST", f"{path[:-3]}ybindings", body={"metadata": {"name": name}, "spec": binding})


async def create(client: Client, obj: Obj, namespace: str, resource: Resource = CONFIG_MAPS) -> Obj:
    return await client.create(resource, {**obj, "metadata": {**obj["metadata"], "namespace": namespace}})


async def refusal(client: Client, obj: Obj) -> StatusError:
    with pytest.raises(StatusError) as raised:
        await create(client, obj, "default")
    return raised.value


DENIED = "configmaps \"cm\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: "


@pytest.mark.parametrize(
    ("validation", "code", "reason", "message"),
    [
        ({}, 422, "Invalid", "failed expression: object.data.a == 'yes'"),
        ({"message": " no good "}, 422, "Invalid", "no good"),
        ({"messageExpression": "'a is ' + object.data.a"}, 422, "Invalid", "a is no"),
        ({"messageExpression": "'a\\nb'", "message": "plain"}, 422, "Invalid", "plain"),
        ({"messageExpression": "object.data.b", "message": "plain"}, 422, "Invalid", "plain"),
        ({"reason": "Forbidden"}, 403, "Forbidden", "failed expression: object.data.a == 'yes'"),
        (
            {"reason": "RequestEntityTooLarge"},
            413,
            "RequestEntityTooLarge",
            "failed expression: object.data.a == 'yes'",
        ),
    ],
)
async def test_a_validation_refuses_in_its_words(
    client: Client, validation: Obj, code: int, reason: str, message: str
) -> None:
    if "object.data.b" in validation.get("messageExpression", ""):
        validation = {**validation, "messageExpression": "string(object.data.b)"}
    await policy(client, validations=[{"expression": "object.data.a == 'yes'", **validation}])

    error = await refusal(client, config_map(a="no"))

    assert (error.code, error.reason, error.message) == (code, reason, DENIED + message)
    assert error.details == {
        "name": "cm",
        "kind": "configmaps",
        "causes": [{"message": error.message.split(": ", 1)[1]}],
    }
    await create(client, config_map(a="yes"), "default")


async def test_an_error_refuses_unless_the_policy_says_otherwise(client: Client) -> None:
    await policy(client, validations=[{"expression": "object.data.a == 'yes'"}])
    error = await refusal(client, config_map(b="x"))
    assert error.message == DENIED + "expression 'object.data.a == 'yes'' resulted in error: no such key: a"

    await client.patch(
        VALIDATING_ADMISSION_POLICIES, "p", "", {"spec": {"failurePolicy": "Ignore"}}, kind=PatchKind.MERGE
    )

    await create(client, config_map(b="x"), "default")


async def test_a_change_counts_from_the_next_write_on_and_a_policy_without_binding_says_nothing(client: Client) -> None:
    await policy(client, validations=[{"expression": "false"}])
    await refusal(client, config_map())

    await client.request("DELETE", f"/apis/{GROUP}/validatingadmissionpolicybindings/p")

    await create(client, config_map(), "default")


async def test_warnings_and_audit_refuse_nothing(cluster: EmbeddedCluster, client: Client) -> None:
    await policy(
        client,
        validations=[{"expression": "false", "message": "careful"}],
        bind={"validationActions": ["Warn", "Audit"]},
    )

    status, _, warnings = await post(cluster, "/api/v1/namespaces/default/configmaps", config_map())

    assert status == 201
    assert warnings == ["299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': careful\""]


async def test_conditions_variables_and_the_old_object(client: Client) -> None:
    await policy(
        client,
        matchConditions=[{"name": "c", "expression": "object.metadata.name.startsWith('c')"}],
        variables=[
            {"name": "was", "expression": "oldObject == null ? '' : oldObject.data.a"},
            {"name": "same", "expression": "variables.was == object.data.a"},
        ],
        validations=[{"expression": "oldObject == null || variables.same", "message": "a is immutable"}],
    )
    await create(client, config_map(a="1"), "default")
    await create(client, config_map("other", a="1"), "default")

    await client.patch(CONFIG_MAPS, "other", "default", {"data": {"a": "2"}}, kind=PatchKind.MERGE)
    with pytest.raises(StatusError, match="a is immutable"):
        await client.patch(CONFIG_MAPS, "cm", "default", {"data": {"a": "2"}}, kind=PatchKind.MERGE)


async def test_a_variable_that_fails_names_itself(client: Client) -> None:
    await policy(
        client,
        variables=[{"name": "x", "expression": "object.data.missing"}],
        validations=[{"expression": "variables.x == 'y'"}],
    )

    error = await refusal(client, config_map(a="x"))

    assert error.message == DENIED + (
        "expression 'variables.x == 'y'' resulted in error: composited variable \"x\" fails to evaluate: "
        "no such key: missing"
    )


async def test_the_request_and_the_namespace_are_there(cluster: EmbeddedCluster, client: Client) -> None:
    await policy(
        client,
        validations=[
            {
                "expression": "false",
                "messageExpression": "[request.operation, request.namespace, request.name, request.kind.kind, "
                "request.resource.resource, request.userInfo.username, namespaceObject.metadata.name, "
                "string(request.dryRun)].join(' ') + (has(request.subResource) ? '!' : '') + "
                "(namespaceObject.metadata.creationTimestamp > timestamp('2000-01-01T00:00:00Z') ? '' : 'old')",
            }
        ],
    )

    error = await refusal(client, config_map())

    assert error.message == DENIED + f"CREATE default cm ConfigMap configmaps {ADMIN.name} default false"


async def test_the_authorizer_can_be_asked(cluster: EmbeddedCluster, client: Client) -> None:
    await policy(
        client,
        validations=[
            {
                "expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed() && "
                "authorizer.requestResource.check('create').allowed()"
            },
            {"expression": "!authorizer.serviceAccount('default', 'default').path('/metrics').check('get').allowed()"},
        ],
    )
    await create(client, config_map(), "default")
    await allow(client, JANE, {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]})

    with pytest.raises(StatusError, match="denied request: failed expression"):
        await create(cluster.client_as(JANE), config_map("janes"), "default")


async def test_who_writes_a_policy_can_read_what_it_tells_of(cluster: EmbeddedCluster, client: Client) -> None:
    writing = {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]}
    await allow(client, JANE, writing)
    jane = cluster.client_as(JANE)
    tells = {
        "paramKind": {"apiVersion": "v1", "kind": "Secret"},
        "validations": [{"expression": "false", "messageExpression": "string(params.data.key)"}],
    }
    refers = {"paramRef": {"name": "s", "namespace": "default", "parameterNotFoundAction": "Allow"}}

    with pytest.raises(StatusError) as of_kind:
        await policy(jane, **tells)
    await policy(jane, "harmless", validations=[{"expression": "true"}])
    await policy(client, "others", **tells)
    with pytest.raises(StatusError) as of_object:
        await jane.request(
            "POST",
            f"/apis/{GROUP}/validatingadmissionpolicybindings",
            body={
                "metadata": {"name": "janes"},
                "spec": {"policyName": "others", "validationActions": ["Deny"], **refers},
            },
        )

    assert of_kind.value.code == 422
    assert str(of_kind.value) == (
        'ValidatingAdmissionPolicy.admissionregistration.k8s.io "p" is invalid: spec.paramKind: Forbidden: user '
        '&{jane  [system:authenticated] map[]} must have "get" permission on all objects of the referenced paramKind '
        "(kind=Secret, apiVersion=v1)"
    )
    assert str(of_object.value) == (
        'ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io "janes" is invalid: spec.paramRef: Forbidden: '
        'user &{jane  [system:authenticated] map[]} does not have "get" permission on the object referenced by paramRef'
    )
    await allow(client, User("reader"), {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})
    bound = {
        "metadata": {"name": "jane-reads"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    }
    await client.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body=bound)
    await policy(jane, "allowed", bind=refers, **tells)


async def test_selectors_exceptions_and_names_choose_the_objects(client: Client) -> None:
    await client.create(NAMESPACES, {"metadata": {"name": "other", "labels": {"checked": "no"}}})
    await policy(
        client,
        validations=[{"expression": "false"}],
        matchConstraints={
            "resourceRules": [{**CONFIG_MAP_WRITES, "resourceNames": ["cm", "free"]}],
            "excludeResourceRules": [{**CONFIG_MAP_WRITES, "resourceNames": ["free"]}],
            "namespaceSelector": {"matchExpressions": [{"key": "checked", "operator": "NotIn", "values": ["no"]}]},
            "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
        },
    )

    await refusal(client, config_map())
    await create(client, config_map("free"), "default")
    await create(client, config_map("unnamed"), "default")
    await create(client, {"metadata": {"name": "cm"}}, "other")
    await create(client, {"metadata": {"name": "cm", "labels": {"skip": ""}}}, "default")


async def test_equivalent_versions_are_looked_at_in_the_version_of_the_rule(client: Client) -> None:
    rule = {
        "apiGroups": ["autoscaling"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["horizontalpodautoscalers"],
    }
    await policy(
        client,
        rules=[rule],
        validations=[{"expression": "object.spec.targetCPUUtilizationPercentage < 50", "message": "v1"}],
    )
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}},
    }
    body = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": target, "maxReplicas": 2, "metrics": [metric]}}

    with pytest.raises(StatusError, match="denied request: v1"):
        await client.request("POST", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", body=body)


async def test_parameters_are_found_by_name_and_by_selector(client: Client) -> None:
    params = {"metadata": {"name": "limits", "labels": {"limits": "yes"}}, "data": {"max": "2"}}
    await client.create(NAMESPACES, {"metadata": {"name": "other"}})
    await create(client, params, "other")
    await policy(
        client,
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        validations=[
            {
                "expression": "size(object.data.a) <= int(params.data.max)",
                "messageExpression": "'at most ' + params.data.max",
            }
        ],
        bind={"paramRef": {"name": "limits", "namespace": "other", "parameterNotFoundAction": "Deny"}},
    )
    assert (await refusal(client, config_map(a="long"))).message == DENIED + "at most 2"

    await client.request("DELETE", f"/apis/{GROUP}/validatingadmissionpolicybindings/p")
    ref = {"selector": {"matchLabels": {"limits": "yes"}}, "namespace": "other", "parameterNotFoundAction": "Allow"}
    spec = {"policyName": "p", "validationActions": ["Deny"], "paramRef": ref}
    await client.request(
        "POST", f"/apis/{GROUP}/validatingadmissionpolicybindings", body={"metadata": {"name": "p"}, "spec": spec}
    )
    await refusal(client, config_map(a="long"))

    await client.delete(CONFIG_MAPS, "limits", "other")
    await create(client, config_map(a="long"), "default")


async def test_parameters_that_are_not_there_refuse_where_the_binding_says_so(client: Client) -> None:
    await policy(
        client,
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        validations=[{"expression": "true"}],
        bind={"paramRef": {"name": "none", "parameterNotFoundAction": "Deny"}},
    )
    wrong = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    assert (await refusal(client, config_map())).message == DENIED + wrong


async def test_a_kind_of_parameters_that_is_not_served_is_an_error_of_the_policy(client: Client) -> None:
    await policy(
        client,
        paramKind={"apiVersion": "example.com/v1", "kind": "Limit"},
        validations=[{"expression": "true"}],
        bind={"paramRef": {"name": "none", "parameterNotFoundAction": "Allow"}},
    )

    assert (await refusal(client, config_map())).message == (
        "configmaps \"cm\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: "
        "failed to find resource referenced by paramKind: 'example.com/v1, Kind=Limit'"
    )


async def test_policies_are_never_for_policies(client: Client) -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}
    await policy(client, rules=[everything], validations=[{"expression": "false"}])

    await refusal(client, config_map())
    await client.request("DELETE", f"/apis/{GROUP}/validatingadmissionpolicies/p")

    assert (await create(client, config_map(), "default"))["metadata"]["name"] == "cm"


async def test_policies_are_never_for_reviews_of_access(cluster: EmbeddedCluster, client: Client) -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*"]}
    await policy(client, validations=[{"expression": "false"}], rules=[everything])
    question = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}

    status, review, _ = await post(cluster, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", question)

    assert (status, review["status"]["allowed"]) == (201, True)


async def test_the_first_policy_that_refuses_is_told_whatever_is_wrong_with_later_ones(client: Client) -> None:
    await policy(client, "a", validations=[{"expression": "false", "message": "no"}])
    await policy(
        client,
        "b",
        paramKind={"apiVersion": "none.example.com/v1", "kind": "None"},
        validations=[{"expression": "true"}],
    )

    error = await refusal(client, config_map())

    assert error.message.endswith("ValidatingAdmissionPolicy 'a' with binding 'a' denied request: no")


async def test_a_message_cannot_ask_what_who_writes_may_do(client: Client) -> None:
    await policy(
        client,
        variables=[{"name": "may", "expression": "authorizer.path('/').check('get').allowed()"}],
        validations=[{"expression": "!variables.may", "messageExpression": "string(variables.may)", "message": "no"}],
    )

    assert (await refusal(client, config_map())).message == DENIED + "no"


async def test_deletions_and_subresources_can_be_refused(client: Client) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]}
    await policy(client, rules=[rule], validations=[{"expression": "oldObject.data.keep != 'yes' || object != null"}])
    await create(client, config_map(keep="yes"), "default")

    with pytest.raises(StatusError, match="denied request"):
        await client.delete(CONFIG_MAPS, "cm", "default")


HOSTILE = (
    "object.data.a.split('').all(a, object.data.a.split('').all(b, object.data.a.split('').all(c, a + b + c != '')))"
)


async def test_a_hostile_policy_is_stopped_and_holds_nobody_up(cluster: EmbeddedCluster, client: Client) -> None:
    """It runs beside the event loop as soon as it takes more than a moment."""
    await policy(client, validations=[{"expression": HOSTILE}])

    error = await refusal(client, config_map(a="x" * 3000))

    assert (
        error.message
        == DENIED + f"expression '{HOSTILE}' resulted in error: operation cancelled: actual cost limit exceeded"
    )


async def test_the_budget_of_a_policy_is_for_all_its_expressions(client: Client) -> None:
    dear = "authorizer.path('/x').check('get').allowed() || authorizer.path('/x').check('get').allowed() || true"
    await policy(client, validations=[{"expression": dear}] * 30, matchConditions=[{"name": "c", "expression": "true"}])

    error = await refusal(client, config_map())

    spent = "validation failed due to running out of cost budget, no further validation rules will be run"
    assert error.message == DENIED + spent


# Types in the status


async def test_what_cannot_work_on_a_type_is_a_warning_in_the_status(client: Client) -> None:
    deployments = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
    await policy(
        client,
        rules=[deployments],
        variables=[{"name": "replicas", "expression": "object.spec.replicas"}],
        validations=[
            {"expression": "object.replicas > 1"},
            {"expression": "variables.replicas > 1", "messageExpression": "'x' + object.spec.replicas"},
        ],
    )

    found = await client.get(VALIDATING_ADMISSION_POLICIES, "p")

    assert found["status"]["observedGeneration"] == 1
    assert found["status"]["typeChecking"]["expressionWarnings"] == [
        {
            "fieldRef": "spec.validations[0].expression",
            "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n"
            " | object.replicas > 1\n | ......^\n",
        },
        {
            "fieldRef": "spec.validations[1].messageExpression",
            "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:5: found no matching overload for '_+_' applied to "
            "'(string, int)'\n | 'x' + object.spec.replicas\n | ....^\n",
        },
    ]


async def test_expressions_that_work_leave_no_warning(client: Client) -> None:
    rules = [{**CONFIG_MAP_WRITES, "resources": ["pods", "configmaps", "pods/status"]}]
    text = "has(object.metadata.labels) && object.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z')"
    await policy(client, rules=rules, validations=[{"expression": text}])

    found = await client.get(VALIDATING_ADMISSION_POLICIES, "p")

    assert found["status"] == {"observedGeneration": 1, "typeChecking": {}}


# Mutations


async def test_configurations_are_merged_and_patches_done_in_order(client: Client) -> None:
    await mutating(
        client,
        "m",
        ("ApplyConfiguration", "Object{metadata: Object.metadata{labels: {'one': '1'}}}"),
        (
            "JSONPatch",
            "[JSONPatch{op: 'test', path: '/metadata/labels/one', value: '1'}, "
            "JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: object.data.a}]",
        ),
    )

    made = await create(client, config_map(a="x"), "default")

    assert made["metadata"]["labels"] == {"one": "1", "a/b": "x"}
    assert made["data"] == {"a": "x"}


async def test_lists_are_merged_by_their_keys(client: Client) -> None:
    place = "Object.spec.template.spec"
    containers = f"object.spec.template.spec.containers.map(c, {place}.containers{{name: c.name, tty: true}})"
    pod = f"Object.spec.template{{spec: {place}{{containers: {containers}}}}}"
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
    await mutating(
        client,
        "m",
        ("ApplyConfiguration", f"Object{{spec: Object.spec{{template: {pod}}}}}"),
        matchConstraints={"resourceRules": [rule]},
    )
    template = {
        "metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]},
    }
    spec = {"selector": {"matchLabels": {"app": "d"}}, "template": template}

    made = await create(client, {"metadata": {"name": "d"}, "spec": spec}, "default", DEPLOYMENTS)

    assert [(each["name"], each["image"], each["tty"]) for each in made["spec"]["template"]["spec"]["containers"]] == [
        ("a", "a:1", True),
        ("b", "b:1", True),
    ]


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        (
            ("JSONPatch", "[JSONPatch{op: 'replace', path: '/data/none/x', value: 'y'}]"),
            "JSON Patch: replace operation does not apply: doc is missing path: /data/none/x: missing value",
        ),
        (
            ("JSONPatch", "[JSONPatch{op: 'remove', path: '/data/none'}]"),
            "JSON Patch: error in remove for path: '/data/none': Unable to remove nonexistent key: none: missing value",
        ),
        (
            ("ApplyConfiguration", "Object{spec: Object.spec{x: 1}}"),
            "error applying patch: failed to convert patch object to typed object: .spec: field not declared in schema",
        ),
        (
            ("ApplyConfiguration", "Object{metadata: Object.wrong{labels: {'a': 'b'}}}"),
            'type mismatch: unexpected type name "Object.wrong", expected "Object.metadata", which matches field name '
            "path from root Object type",
        ),
        (
            ("ApplyConfiguration", "Object{data: {'b': string(object.data.none)}}"),
            "expression 'Object{data: {'b': string(object.data.none)}}' resulted in error: no such key: none",
        ),
    ],
)
async def test_a_mutation_that_does_not_fit_refuses(client: Client, mutation: tuple[str, str], why: str) -> None:
    await mutating(client, "m", mutation)

    error = await refusal(client, config_map(a="x"))

    assert (error.code, error.reason) == (403, "Invalid")
    assert error.message == f"policy 'm' with binding 'm' denied request: {why}"


async def test_a_mutation_that_does_not_fit_is_left_out_where_errors_are_ignored(client: Client) -> None:
    await mutating(client, "m", ("JSONPatch", "[JSONPatch{op: 'remove', path: '/data/none'}]"), failurePolicy="Ignore")

    assert (await create(client, config_map(a="x"), "default"))["data"] == {"a": "x"}


async def test_what_mutations_make_gets_its_defaults_and_is_validated(client: Client) -> None:
    await policy(client, validations=[{"expression": "!has(object.data.b)", "message": "no b"}])
    await mutating(client, "m", ("ApplyConfiguration", "Object{data: {'b': 'x'}}"))

    assert (await refusal(client, config_map())).message == DENIED + "no b"


async def test_a_policy_is_asked_again_where_a_later_one_changed_something(client: Client) -> None:
    label = "Object{metadata: Object.metadata{labels: {'%s': %s}}}"
    seen = "has(object.metadata.labels) && 'second' in object.metadata.labels ? 'yes' : 'no'"
    await mutating(client, "a", ("ApplyConfiguration", label % ("saw", seen)), reinvocationPolicy="IfNeeded")
    await mutating(client, "b", ("ApplyConfiguration", label % ("second", "'here'")))

    made = await create(client, config_map(), "default")

    assert made["metadata"]["labels"] == {"saw": "yes", "second": "here"}


async def test_a_cluster_without_policies_asks_none(cluster: EmbeddedCluster) -> None:
    kind = cluster.server.core.served.of(CONFIG_MAPS)

    interested = cluster.server.core.admission.interested(kind, "CREATE", "")

    assert not [plugin.name for plugin in (*interested.mutate, *interested.validate) if "Policy" in plugin.name]


async def test_a_policy_concerns_the_kinds_that_it_names_alone(cluster: EmbeddedCluster, client: Client) -> None:
    await policy(client, validations=[{"expression": "true"}])
    chain, served = cluster.server.core.admission, cluster.server.core.served

    named = chain.interested(served.of(CONFIG_MAPS), "CREATE", "")
    other = chain.interested(served.of(DEPLOYMENTS), "CREATE", "")

    assert "ValidatingAdmissionPolicy" in [plugin.name for plugin in named.validate]
    assert "ValidatingAdmissionPolicy" not in [plugin.name for plugin in other.validate]
