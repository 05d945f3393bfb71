from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.agent.pods.environment import (
    ConfigError,
    Mount,
    Sources,
    Translator,
    command,
    environment,
    expand,
    field,
    references,
    resource_field,
)

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1"}, "annotations": {"x/y": "z"}},
    "spec": {"nodeName": "node"},
}
SOURCES = Sources(
    POD,
    "127.1.0.5",
    {"cpu": "64", "memory": "1Gi"},
    {"m": {"data": {"k": "v", "a.b": "c"}}},
    {"s": {"data": {"t": "aHVzaA=="}}},
)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(NO)", "$(NO)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$", "$"),
        ("$A", "$A"),
        ("$", "$"),
        ("$(A", "$(A"),
        ("$()", "$()"),
    ],
)
def test_variables_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


@given(st.text(alphabet=st.characters(exclude_characters="$")), st.dictionaries(NAME, st.text()))
def test_text_without_a_dollar_is_left_alone(text: str, values: dict[str, str]) -> None:
    assert expand(text, values) == text


@given(NAME, st.text())
def test_what_was_expanded_is_not_expanded_again(name: str, value: str) -> None:
    assert expand(f"$({name})", {name: value}) == value


TRANSLATE = Translator(
    [
        Mount("/models", "/host/w"),
        Mount("/models/one", "/host/one"),
        Mount("/tmp", "/host/tmp"),
        Mount("/etc/x.json", "/host/x"),
    ],
    "127.1.0.5",
)


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("/models", "/host/w"),
        ("/models/", "/host/w/"),
        ("/models/a/b", "/host/w/a/b"),
        ("/models/one/a", "/host/one/a"),
        ("/models/ones", "/host/w/ones"),
        ("--path=/models/a", "--path=/host/w/a"),
        ("a:/models:/tmp", "a:/host/w:/host/tmp"),
        ('{"path": "/models/a"}', '{"path": "/host/w/a"}'),
        ("cat /models/a > /tmp/b; ls /etc/x.json", "cat /host/w/a > /host/tmp/b; ls /host/x"),
        ("file:///models/a", "file:///host/w/a"),
        # Not mounts:
        ("/models2", "/models2"),
        ("/models-old/a", "/models-old/a"),
        ("/models.bak", "/models.bak"),
        ("/other/models", "/other/models"),
        ("./models", "./models"),
        ("http://hub/models/a", "http://hub/models/a"),
        ("org/models", "org/models"),
        ("$HOME/models", "$HOME/models"),
        # Addresses:
        ("0.0.0.0", "127.1.0.5"),
        ("--host=0.0.0.0", "--host=127.1.0.5"),
        ("0.0.0.0:8000", "127.1.0.5:8000"),
        ("10.0.0.0", "10.0.0.0"),
        ("0.0.0.0.1", "0.0.0.0.1"),
    ],
)
def test_mount_paths_and_addresses_are_translated(text: str, translated: str) -> None:
    assert TRANSLATE(text) == translated


@given(st.text(alphabet=st.sampled_from("/abmodels.-_ =:")), st.sampled_from(["/models", "/a", "/a/b"]))
def test_text_that_has_no_mount_path_is_left_alone(text: str, path: str) -> None:
    translated = Translator([Mount(path, "/HOST")], "127.1.0.5")(text)
    if path not in text:
        assert translated == text
    # Only whole components are replaced: the inverse gives the text.
    assert translated.replace("/HOST", path) == text
    assert not re.search(r"/HOST[\w.-]", translated)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4))
def test_the_longest_mount_wins(parts: list[str]) -> None:
    mounts = [Mount("/" + "/".join(parts[:count]), f"/H{count}") for count in range(1, len(parts) + 1)]
    assert Translator(mounts, "127.1.0.5")("/" + "/".join(parts) + "/f") == f"/H{len(parts)}/f"


def test_a_folder_that_looks_like_a_mount_is_not_translated_twice() -> None:
    assert Translator([Mount("/tmp", "/tmp/sandbox/tmp"), Mount("/w", "/tmp/w")], "127.1.0.5")("/w/f") == "/tmp/w/f"


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("db.shop.svc", "127.65.0.9"),
        ("postgresql://me:secret@db.shop.svc:5432/x", "postgresql://me:secret@127.65.0.9:5432/x"),
        ("http://db.shop.svc.cluster.local/a", "http://127.65.0.9/a"),
        ("--url=db.shop.svc.", "--url=127.65.0.9."),
        # No Service, or another name:
        ("other.shop.svc", "other.shop.svc"),
        ("my.db.shop.svc", "my.db.shop.svc"),
        ("db.shop.svc.example.org", "db.shop.svc.example.org"),
        ("db.shop.svcs", "db.shop.svcs"),
        ("db.shop", "db.shop"),
    ],
)
def test_names_of_services_are_translated(text: str, translated: str) -> None:
    addresses = {("shop", "db"): "127.65.0.9"}
    translate = Translator([], "127.1.0.5", lambda namespace, name: addresses.get((namespace, name)))
    assert translate(text) == translate.names(text) == translated


def test_variables_come_in_order_and_later_ones_win() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "m"}}, {"prefix": "S_", "secretRef": {"name": "s"}}],
        "env": [
            {"name": "k", "value": "over"},
            {"name": "USES", "value": "$(k) $(S_t) $(LATER)"},
            {"name": "LATER", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
        ],
    }
    resolved = environment(container, SOURCES)
    assert resolved.values == {"k": "over", "a.b": "c", "S_t": "hush", "USES": "over hush $(LATER)", "LATER": "v"}
    assert resolved.secret == {"S_t"}
    assert references(container) == ({"m"}, {"s"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"configMapKeyRef": {"name": "m", "key": "no"}}, "couldn't find key no in ConfigMap n/m"),
        ({"secretKeyRef": {"name": "s", "key": "no"}}, "couldn't find key no in Secret n/s"),
        ({"fieldRef": {"fieldPath": "spec.nonsense"}}, "unsupported fieldPath: spec.nonsense"),
        ({"fileKeyRef": {}}, "unsupported source of an environment variable: fileKeyRef"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        environment({"env": [{"name": "X", "valueFrom": source}]}, SOURCES)


def test_what_is_optional_may_be_missing() -> None:
    sources = [
        {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}},
        {"secretKeyRef": {"name": "s", "key": "no", "optional": True}},
    ]
    env = [{"name": f"V{number}", "valueFrom": source} for number, source in enumerate(sources)]
    container = {"env": env, "envFrom": [{"configMapRef": {"name": "no", "optional": True}}]}
    assert environment(container, SOURCES).values == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.uid", "u"),
        ("metadata.labels['a']", "1"),
        ("metadata.annotations['x/y']", "z"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", 'a="1"'),
        ("status.hostIP", "127.0.0.1"),
        ("status.podIPs", "127.1.0.5"),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert field(path, POD, "127.1.0.5") == value


def test_resources_are_counted_in_the_divisor_and_default_to_the_node() -> None:
    container = {"resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}}}
    assert resource_field({"resource": "limits.cpu"}, container, SOURCES.allocatable) == "2"
    assert resource_field({"resource": "limits.cpu", "divisor": "1m"}, container, SOURCES.allocatable) == "1500"
    assert resource_field({"resource": "limits.memory", "divisor": "1Mi"}, container, SOURCES.allocatable) == "1024"
    assert resource_field({"resource": "requests.memory", "divisor": "0"}, container, SOURCES.allocatable) == str(
        100 << 20
    )


def test_a_command_takes_the_place_of_the_program_and_arguments_follow_either() -> None:
    arguments = {"args": ["--model=/models", "$(A)"]}
    program = ("{python}", "-m", "engine", "--host", "{pod_ip}", "/models")
    started = command(arguments, program, {"A": "/tmp"}, TRANSLATE, "127.1.0.5")
    assert started[1:] == ["-m", "engine", "--host", "127.1.0.5", "/models", "--model=/host/w", "/host/tmp"]
    assert started[0].startswith("/")
    assert command({"command": ["sh", "/models/x"]}, program, {}, TRANSLATE, "127.1.0.5") == ["sh", "/host/w/x"]
