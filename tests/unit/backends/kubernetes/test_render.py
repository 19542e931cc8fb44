"""The rendered Job: strict by the API's own schemas, hardened, the exit codes' consequences, every text as it was."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.backends.kubernetes import render
from runner.backends.kubernetes.values import chart, load_values, placement, placements, values_for
from runner.errors import ConfigError, SpecError
from runner.spec import Backend, RunSpec
from runner.spec.files import dump
from runner.worker.identity import identity
from tests.unit.backends.kubernetes.strict import DEFINITIONS, faults

SPEC = RunSpec(store="gs://bucket/prefix", start_date="2024-08-08", shards=100, parallelism=6)
NASTY = [
    "1e3", "1E+3", "yes", "NO", "off", "y", "0o17", "017", "0x1F", "0b1", "1_000", "12:30:45", "1.", ".5", "-.inf",
    "null", "~", "", " ", "true", "2024-08-08", "=", "<<", "*a", "&a", "!a", "%a", "@a", "`a`", "- a", "a: b", "a #b",
    "'", '"', "\\", "\\u0041", "it's \"quoted\"", "a\nb\n", "\r\n", "\t", "\x00", "\x7f", "\x85", "\u2028", "\ufeff",
    "{{ .Values.run }}", "{{", "}}", "{", "[1]", "é", "中文", "\U0001f680", "$(HOME)", "$$(A)", "---", "...", ".NaN",
    "?", "? a", "|", ">", "x" * 1000, "a b " * 300,
]  # fmt: skip


def values(**pod: object) -> dict:
    return values_for(SPEC, run_id="download-3f9a1c20", shards=100, image="runner:dev", files=[{"pod": pod}])


def job(**pod: object) -> dict:
    return render.job(values(**pod))


def pod_spec(job: dict) -> dict:
    return job["spec"]["template"]["spec"]


def container(job: dict) -> dict:
    (only,) = pod_spec(job)["containers"]
    return only


def env(job: dict) -> dict:
    return {entry["name"]: entry.get("value") for entry in container(job)["env"]}


def without(job: dict, *path: str | int) -> dict:
    """Return a copy with one field misspelt."""
    changed = copy.deepcopy(job)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[f"{path[-1]}x"] = place.pop(path[-1])
    return changed


def test_the_api_knows_every_field() -> None:
    assert faults(job()) == []
    assert faults(render.job({**values(), "job": {**values()["job"], "namespace": "somewhere"}})) == []


@pytest.mark.parametrize("name", placements())
def test_shipped_placements_are_known_to_the_api(name: str) -> None:
    assert faults(job(**placement(name)["pod"])) == []


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "backoffLimitPerIndex"),
        ("spec", "podFailurePolicy", "rules", 1, "onExitCodes", "operator"),
        ("spec", "template", "spec", "containers", 0, "securityContext", "capabilities", "drop"),
        ("metadata", "labels"),
    ],
)
def test_the_schemas_refuse_a_misspelt_field(path: tuple) -> None:
    assert any("unknown" in fault for fault in faults(without(job(), *path)))


def test_the_schemas_refuse_wrong_types() -> None:
    wrong = job()
    wrong["spec"]["completions"] = "100"
    wrong["metadata"]["labels"]["a"] = 1
    wrong["spec"]["parallelism"] = 2**31
    assert len(faults(wrong)) == 3


def test_the_schemas_are_of_one_release_and_whole() -> None:
    named = set(re.findall(r"'\$ref': '([^']+)'", str(DEFINITIONS)))
    assert named <= set(DEFINITIONS)
    assert "io.k8s.api.core.v1.PodSpec" in named


def test_exit_codes_decide_what_becomes_of_a_pod() -> None:
    exits = {"containerName": "worker", "operator": "In"}
    assert job()["spec"]["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailIndex", "onExitCodes": {**exits, "values": [65]}},
        {"action": "FailJob", "onExitCodes": {**exits, "values": [64, 77, 78]}},
    ]


def test_the_job_is_an_index_for_each_shard() -> None:
    spec = job()["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 100, 6)
    assert (spec["backoffLimitPerIndex"], spec["podReplacementPolicy"]) == (6, "Failed")
    assert "maxFailedIndexes" not in spec
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"], spec["suspend"]) == (86400, 259200, False)
    pod = pod_spec(job())
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 15)
    assert pod["automountServiceAccountToken"] is False
    assert {(t["key"], t["tolerationSeconds"]) for t in pod["tolerations"]} == {
        ("node.kubernetes.io/not-ready", 60),
        ("node.kubernetes.io/unreachable", 60),
    }


def test_no_more_pods_at_a_time_than_shards() -> None:
    few = render.job(values_for(SPEC, run_id="download-3f9a1c20", shards=2, image="runner:dev"))
    assert (few["spec"]["completions"], few["spec"]["parallelism"]) == (2, 2)
    spec = RunSpec.from_json(env(few)["RUNNER_SPEC"])
    assert (spec.shards, spec.parallelism) == (2, 2)


def test_memory_is_never_shared() -> None:
    resources = container(job())["resources"]
    for what in ("memory", "ephemeral-storage"):
        assert resources["requests"][what] == resources["limits"][what]


def test_the_pod_is_within_the_restricted_standard() -> None:
    """By the table of kubernetes.io/docs/concepts/security/pod-security-standards."""
    pod, worker = pod_spec(job()), container(job())
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert worker["securityContext"]["allowPrivilegeEscalation"] is False
    assert worker["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }


def test_a_read_only_root_has_somewhere_to_write() -> None:
    worker = container(job())
    assert worker["securityContext"]["readOnlyRootFilesystem"] is True
    places = {mount["mountPath"] for mount in worker["volumeMounts"] if not mount.get("readOnly")}
    assert {env(job())["RUNNER_SCRATCH"], env(job())["HOME"]} == places


def test_the_worker_understands_its_environment(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("fake-key-1")
    said = {name: value for name, value in env(job()).items() if value is not None}
    # What Kubernetes adds: the index, and the values of fields.
    me = identity({**said, "JOB_COMPLETION_INDEX": "99", "RUNNER_THREADS": "1", "TARDIS_API_KEY_FILE": str(key)})
    spec = SPEC.model_copy(update={"backend": Backend.KUBERNETES, "image": "runner:dev"})
    assert (me.run, me.shard, me.spec, me.threads) == ("download-3f9a1c20", 99, spec, 1)


def test_the_attempt_and_the_threads_are_told_by_the_pod() -> None:
    told = {entry["name"]: entry["valueFrom"] for entry in container(job())["env"] if "valueFrom" in entry}
    assert told["RUNNER_ATTEMPT"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert told["RUNNER_THREADS"]["resourceFieldRef"]["resource"] == "requests.cpu"
    assert told["RUNNER_THREADS"]["resourceFieldRef"]["containerName"] == container(job())["name"]


def test_the_key_is_a_mounted_file() -> None:
    (volume,) = [v for v in pod_spec(job())["volumes"] if "secret" in v]
    (mount,) = [m for m in container(job())["volumeMounts"] if m["name"] == volume["name"]]
    assert env(job())["TARDIS_API_KEY_FILE"] == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    assert mount["readOnly"] is True
    assert volume["secret"]["defaultMode"] == 0o440


def test_without_a_key_nothing_is_mounted() -> None:
    assert "TARDIS_API_KEY_FILE" not in env(job(tardisKey=None))
    assert "secret" not in str(pod_spec(job(tardisKey=None))["volumes"])


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_is_the_same_at_the_end(text: str) -> None:
    entry = {"name": "A", "value": text}
    filled = values(annotations={text[:1000]: text}, env=[entry], imagePullPolicy=text)
    document = render.job(filled)
    assert document["spec"]["template"]["metadata"]["annotations"][text[:1000]] == text
    assert container(document)["env"][-1] == entry
    assert container(document)["imagePullPolicy"] == text
    assert yaml.safe_load(render.yaml(filled)) == document
    assert faults(document) == []


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_json_and_yaml_of_the_same_meaning(text: str) -> None:
    encoded = render.to_json({text: [text]})
    assert "\n" not in encoded
    assert json.loads(encoded) == yaml.safe_load(encoded) == {text: [text]}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_in_the_yaml_is_read_back(text: str) -> None:
    assert yaml.safe_load(dump({"a": [text], text: text}, quoted=True)) == {"a": [text], text: text}


@pytest.mark.parametrize("text", NASTY)
def test_text_that_a_reader_takes_for_something_else_stands_in_quotes(text: str) -> None:
    rendered = render.yaml(values(imagePullPolicy=text))
    (said,) = [line.split(": ", 1)[1] for line in rendered.splitlines() if "imagePullPolicy: " in line]
    assert said[0] in "'\"" or text == "x" * 1000


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(SpecError, match=r"\\udc80.*no character"):
        job(annotations={"a": "b\udc80"})


def test_what_the_kubelet_would_put_in_is_escaped() -> None:
    spec = SPEC.model_copy(update={"store": "gs://bucket/$(HOME)/$$"})
    text = env(render.job(values_for(spec, run_id="download-3f", shards=3, image="i")))["RUNNER_SPEC"]
    assert "$$(HOME)/$$$$" in text


def test_equal_requests_render_equal_bytes() -> None:
    assert render.yaml(values()) == render.yaml(values())


def test_the_template_holds_one_construct_and_no_path_of_nothing() -> None:
    template = chart().joinpath("run/job.yaml").read_text()
    paths = re.findall(r"\{\{ \.Values\.(\S+) \| toJson \}\}", template)
    assert len(paths) == template.count("{{") == template.count("}}")
    for path in paths:
        # With the fields that are null unless somebody gives them.
        place: object = {**values(), "pod": yaml.safe_load(chart().joinpath("values.yaml").read_text())["pod"]}
        for name in path.split("."):
            assert isinstance(place, dict)
            assert name in place, path
            place = place[name]


def test_every_value_of_the_chart_is_used() -> None:
    template = chart().joinpath("run/job.yaml").read_text()
    # These four become part of a list or map of `job`.
    merged = {"labels", "env", "volumes", "volumeMounts", "scratch", "tardisKey"}
    assert {name for name in load_values()["pod"] if f".Values.pod.{name} " not in template} == merged


@pytest.mark.parametrize("template", ["a: {{ .Values.a }}", "{{ if .Values.a }}", "a: {{.Values.a | toJson}}", "{{"])
def test_another_construct_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="template"):
        render.fill(template, {"a": 1})


def test_a_path_of_nothing_is_null() -> None:
    assert render.fill("a: {{ .Values.a.b | toJson }}", {"a": {}}) == "a: null"
    assert render.fill("a: {{ .Values.a.b | toJson }}", {}) == "a: null"


def test_values_are_not_templates() -> None:
    assert (
        render.fill("a: {{ .Values.a | toJson }}", {"a": "{{ .Values.b | toJson }}"}) == 'a: "{{ .Values.b | toJson }}"'
    )
