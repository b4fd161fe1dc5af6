"""kube-apiserver's command line: what is understood, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.api.duration import seconds_of
from navarch.apiserver.user import User
from navarch.cluster.flags.apiserver_flags import FLAGS
from navarch.cluster.flags.apiserver_settings import from_flags, static_tokens
from navarch.cluster.flags.pflag import FlagError, help_text, parse

NEEDED = [
    "--etcd-servers=http://127.0.0.1:2379",
    "--service-account-issuer=https://issuer",
    "--service-account-signing-key-file=/sa.key",
]


def test_values_stand_behind_a_sign_or_in_the_next_word() -> None:
    flags = parse(FLAGS, ["--secure-port=6443", "--bind-address", "127.0.0.1", "--allow_privileged", "-v", "4"])

    assert flags.number("secure-port") == 6443
    assert flags.text("bind-address") == "127.0.0.1"
    assert flags.switch("allow-privileged")
    assert flags.number("v") == 4


def test_lists_add_up_and_other_flags_replace() -> None:
    flags = parse(FLAGS, ["--authorization-mode=Node,RBAC", "--authorization-mode=Webhook", "--v=1", "--v=2"])

    assert flags.texts("authorization-mode") == ("Node", "RBAC", "Webhook")
    assert flags.number("v") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nonsense"], "unknown flag: --nonsense"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["--=x"], "bad flag syntax: --=x"),
        (["--secure-port"], "flag needs an argument: --secure-port"),
        (
            ["--secure-port=x"],
            'invalid argument "x" for "--secure-port" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["--anonymous-auth=maybe"],
            'invalid argument "maybe" for "--anonymous-auth" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (["--event-ttl=soon"], 'invalid argument "soon" for "--event-ttl" flag: time: invalid duration "soon"'),
    ],
)
def test_what_cannot_be_is_refused_as_kubernetes_does(words: list[str], message: str) -> None:
    with pytest.raises(FlagError) as refused:
        parse(FLAGS, words)

    assert str(refused.value) == message


def test_what_is_missing_is_said_all_at_once() -> None:
    with pytest.raises(FlagError) as refused:
        from_flags(parse(FLAGS, []))

    assert str(refused.value) == (
        "[--etcd-servers must be specified, service-account-issuer is a required flag, "
        "--service-account-signing-key-file and --service-account-issuer are required flags]"
    )


def test_arguments_are_refused() -> None:
    with pytest.raises(FlagError, match=r'kube-apiserver does not take any arguments, got \["x"\]'):
        from_flags(parse(FLAGS, [*NEEDED, "x"]))


def test_what_is_not_stated_is_as_in_kubernetes() -> None:
    settings = from_flags(parse(FLAGS, NEEDED))

    assert (settings.server.port, settings.bind_address) == (6443, "0.0.0.0")
    assert settings.server.authorization_modes == ("AlwaysAllow",)
    assert settings.server.service_address == "10.0.0.1"
    assert settings.server.api_audiences == ("https://issuer",)
    assert settings.server.node_ports == range(30000, 32768)


def test_every_flag_is_at_the_beginning_of_a_line_of_the_help() -> None:
    lines = help_text("about", "kube-apiserver", FLAGS.values()).splitlines()

    assert any(line.lstrip().startswith("--etcd-servers ") for line in lines)
    assert not any(line.lstrip().startswith("--insecure-port") for line in lines)


@pytest.mark.parametrize(("text", "seconds"), [("1h2m3s", 3723.0), ("1.5s", 1.5), ("10ms", 0.01), ("0", 0.0)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


def test_a_token_file_names_users_with_their_groups(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text('t1,jane,u1,"a,b"\n\nt2,joe,u2\n')

    assert static_tokens(file) == {"t1": User("jane", ("a", "b"), "u1"), "t2": User("joe", (), "u2")}


def test_a_token_file_with_too_few_columns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text("t1,jane\n")

    with pytest.raises(FlagError, match="must have at least 3 columns"):
        static_tokens(file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--enable-admission-plugins=Nonsense"], 'enable-admission-plugins plugin "Nonsense" is unknown'),
        (
            ["--enable-admission-plugins=Priority", "--disable-admission-plugins=Priority"],
            "[Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
        ),
        (["--authorization-mode=Magic"], 'authorization-mode "Magic" is not a valid mode'),
        (["--service-node-port-range=9-1"], '--service-node-port-range "9-1" is not a valid port range'),
        (["--secure-port=0"], "--secure-port 0 must be between 1 and 65535, inclusive. It cannot be turned off with 0"),
    ],
)
def test_values_that_cannot_be_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(FlagError) as refused:
        from_flags(parse(FLAGS, [*NEEDED, *words]))

    assert str(refused.value) == message
