"""Specs that were looked at before: the answers must be those of a first look."""

from __future__ import annotations

import copy

from navarch.api.meta import Obj
from navarch.kinds.core.pod_defaults import default_pod
from navarch.kinds.core.pod_sound import SoundSpecs, fingerprint


def spec(token: str = "abcde") -> Obj:
    name = f"kube-api-access-{token}"
    pod: Obj = {
        "metadata": {"name": "p"},
        "spec": {
            "containers": [
                {"name": "c", "image": "i", "volumeMounts": [{"name": name, "mountPath": "/var/run/secrets"}]}
            ],
            "volumes": [{"name": name, "emptyDir": {}}],
        },
    }
    default_pod(pod)
    result: Obj = pod["spec"]
    return result


def test_alike_but_for_the_token_volume() -> None:
    assert fingerprint(spec("abcde")) == fingerprint(spec("vwxyz"))
    assert fingerprint(spec("abcde")) != fingerprint(spec("abcdef"))


def test_a_mount_of_another_volume_is_not_alike() -> None:
    sound = SoundSpecs()
    assert not list(sound.validate({"metadata": {}, "spec": spec()}))
    wrong = spec()
    wrong["containers"][0]["volumeMounts"][0]["name"] = "kube-api-access-other"
    for _ in range(2):
        assert [error.field for error in sound.validate({"metadata": {}, "spec": wrong})] == [
            "spec.containers[0].volumeMounts[0].name"
        ]


def test_two_volumes_of_one_name_are_not_alike() -> None:
    sound = SoundSpecs()
    assert not list(sound.validate({"metadata": {}, "spec": spec()}))
    twice = spec()
    twice["volumes"].append(copy.deepcopy(twice["volumes"][0]))
    assert list(sound.validate({"metadata": {}, "spec": twice}))


def test_true_is_not_one() -> None:
    one, true = spec(), spec()
    one["terminationGracePeriodSeconds"], true["terminationGracePeriodSeconds"] = 1, True
    assert fingerprint(one) != fingerprint(true)


def test_warnings_come_every_time() -> None:
    sound = SoundSpecs()
    assert sound.warnings(spec()) == ()
    odd = spec()
    odd["imagePullSecrets"] = [{"name": ""}]
    assert sound.warnings(odd) == sound.warnings(odd) != ()
