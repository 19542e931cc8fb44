"""Values: laid over each other as Helm does it, refused where they cannot mean anything, and holding no secret."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runner.backends.kubernetes.values import chart, load_values, placement, placements, values_for, without_nulls
from runner.errors import RunnerError, SpecError
from runner.spec import RunSpec
from tests.unit.backends.kubernetes.strict import faults

SPEC = RunSpec(store="gs://bucket/prefix", start_date="2024-08-08")
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / f"values-{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(text)
        return path

    return write


def pod(*layers: object) -> dict:
    return load_values(layers)["pod"]


def values(run_id: str = "download-3f9a1c20", shards: int = 3, spec: RunSpec = SPEC, **pod: object) -> dict:
    return values_for(spec, run_id=run_id, shards=shards, image="runner:dev", files=[{"pod": pod}])


def test_maps_merge(file) -> None:
    found = pod(file("pod: {resources: {requests: {cpu: 250m}}}"))["resources"]
    assert found["requests"] == {"cpu": "250m", "memory": "2Gi", "ephemeral-storage": "10Gi"}
    assert found["limits"]["memory"] == "2Gi"


def test_lists_replace(file) -> None:
    assert pod(file("pod: {tolerations: [{operator: Exists}]}"))["tolerations"] == [{"operator": "Exists"}]
    assert pod(file("pod: {tolerations: []}"))["tolerations"] == []


def test_null_takes_away(file) -> None:
    found = pod(
        file("pod: {tardisKey: null, securityContext: {fsGroup: ~}, annotations: {a: b}}"),
        file("pod: {annotations: null}"),
    )
    assert "tardisKey" not in found
    assert "annotations" not in found
    assert "fsGroup" not in found["securityContext"]
    assert found["securityContext"]["runAsNonRoot"] is True


def test_the_later_file_wins(file) -> None:
    first, second = file("pod: {image: a, labels: {x: first, z: first}}"), file("pod: {labels: {x: second}}")
    assert pod(first, second)["labels"] == {"x": "second", "z": "first"}
    assert pod(first, second)["image"] == "a"


def test_files_lie_over_each_other_before_they_lie_over_the_chart(file) -> None:
    """As Helm does it: a null does not outlast the file after it, so the chart's own fields are back."""
    first, second = file("pod: {resources: {limits: null}}"), file("pod: {resources: {limits: {cpu: '1'}}}")
    assert pod(first)["resources"].keys() == {"requests"}
    assert pod(first, second)["resources"]["limits"] == {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "10Gi"}


def test_layers_do_not_change_each_other(file) -> None:
    before = load_values()
    pod(file("pod: {labels: {a: b}, resources: {limits: {memory: 1Gi}}}"))
    assert load_values() == before


@pytest.mark.parametrize("name", placements())
def test_any_node_undoes_another_placement(name: str) -> None:
    found = pod(placement(name), placement("any"))
    assert not found.get("nodeSelector")
    assert found["tolerations"] == load_values()["pod"]["tolerations"]


def test_every_placement_gives_a_lost_node_up_after_a_minute() -> None:
    assert placements() == ("any", "computeclass", "spot-highmem")
    for name in placements():
        lost = {
            t["key"]: t["tolerationSeconds"] for t in placement(name)["pod"]["tolerations"] if "tolerationSeconds" in t
        }
        assert lost == {"node.kubernetes.io/not-ready": 60, "node.kubernetes.io/unreachable": 60}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pod: {nodeSelecter: {}}", "nodeSelecter; did you mean pod.nodeSelector?"),
        ("pods: {}", "no such key: pods; did you mean pod?"),
        ("run: {shard: 3}", "no such key: run.shard; did you mean run.shards?"),
        ("run: {image: a}", "no such key: run.image"),
        ("pod: 3", "must hold keys"),
        ("pod: {env: {A: b}}", "pod.env: must be a list"),
        ("pod: {nodeSelector: spot}", "pod.nodeSelector: must be a map"),
        ("pod: {labels: {a: yes}}", ":1: readers of YAML differ over yes"),
        ("pod: {labels: {a: 1e3}}", "readers of YAML differ over 1e3; put it in quotes"),
        ("pod: {labels: {a: 0o17}}", "0o17"),
        ("pod: {labels: {a: 007}}", "007"),
        ("pod: {resources: {limits: {cpu: 0.5}}}", "0.5; put it in quotes"),
        ("pod: {activeDeadlineSeconds: 9007199254740992}", "too large"),
        (f"pod: {{activeDeadlineSeconds: {'9' * 5000}}}", "too large"),
        ("pod: {image: a, image: b}", "image stands twice"),
        ("pod: {env: &a [], volumes: *a}", "anchors and aliases"),
        (r'pod: {env: [{name: K, value: "TD\x2eabcdefghijklmnop"}]}', "looks like a key"),
        ("", "is empty"),
    ],
)
def test_what_a_file_cannot_mean_is_one_line_that_says_so(file, text: str, words: str) -> None:
    path = file(text)
    with pytest.raises(SpecError) as refusal:
        pod(path)
    assert words in str(refusal.value)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)
    assert "abcdefghijklmnop" not in str(refusal.value)


def test_what_no_reader_disputes_has_its_type(file) -> None:
    labels = "{a: true, b: 17, c: -3, d: 2024-08-08, e: 'yes', f: 1.2.3, g: 0abc, h: '0o17', i: 500m}"
    found = pod(file(f"pod: {{labels: {labels}}}"))["labels"]
    assert found == {
        "a": True, "b": 17, "c": -3, "d": "2024-08-08", "e": "yes", "f": "1.2.3", "g": "0abc", "h": "0o17", "i": "500m",
    }  # fmt: skip


def test_an_image_is_needed_and_a_flag_wins(file) -> None:
    def image(flag: str | None, text: str) -> str:
        return values_for(SPEC, run_id="download-3f", shards=1, image=flag, files=[file(text)])["pod"]["image"]

    assert image(None, "pod: {image: theirs}") == "theirs"
    assert image("mine", "pod: {image: theirs}") == "mine"
    with pytest.raises(SpecError, match=r"--image.*RUNNER_IMAGE.*pod\.image"):
        image(None, "pod: {}")


def test_our_labels_stand_beside_theirs_and_win() -> None:
    labels = values(labels={"team": "data", "runner/run": "other"})["job"]["labels"]
    assert labels == {
        "team": "data",
        "app.kubernetes.io/name": "runner",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/managed-by": "runner",
        "runner/run": "download-3f9a1c20",
        "runner/stage": "download",
    }


def test_their_variables_and_volumes_stand_beside_ours() -> None:
    job = values(
        env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        volumes=[{"name": "more", "emptyDir": {}}],
        volumeMounts=[{"name": "more", "mountPath": "/more"}],
    )["job"]
    assert [entry["name"] for entry in job["env"]][-1] == "HTTPS_PROXY"
    assert [volume["name"] for volume in job["volumes"]] == ["scratch", "tmp", "tardis-key", "more"]
    assert [mount["mountPath"] for mount in job["volumeMounts"]][-1] == "/more"


@pytest.mark.parametrize("name", ["RUNNER_SPEC", "RUNNER_RUN", "TARDIS_API_KEY_FILE", "TARDIS_API_KEY", "HOME"])
def test_a_variable_of_ours_cannot_be_set(name: str) -> None:
    with pytest.raises(SpecError, match=f"pod.env names {name}"):
        values(env=[{"name": name, "value": "x"}])


@pytest.mark.parametrize(
    ("run_id", "shards", "fits"),
    [
        ("a" * 61, 10, True),  # with -9 it has 63 characters
        ("a" * 61, 11, False),
        ("a" * 57, 100_000, True),
        ("a" * 58, 100_000, False),
        ("Download-1", 1, False),
        ("download_1", 1, False),
        ("-a", 1, False),
        ("a.b", 1, False),
    ],
)
def test_the_last_pod_must_be_able_to_have_its_host_name(run_id: str, shards: int, *, fits: bool) -> None:
    if fits:
        assert values(run_id, shards)["job"]["name"] == run_id
    else:
        with pytest.raises(SpecError, match="run "):
            values(run_id, shards)


def test_a_store_that_no_pod_sees_is_refused() -> None:
    here = SPEC.model_copy(update={"store": "file:///data/store"})
    with pytest.raises(SpecError, match="no pod sees it"):
        values(spec=here)
    with pytest.raises(SpecError, match="no pod sees it"):
        values(spec=here, volumeMounts=[{"name": "d", "mountPath": "/dat"}])
    with pytest.raises(SpecError, match="no pod sees it"):
        values(spec=SPEC.model_copy(update={"store": "memory://a"}))
    for path in ("/data", "/data/", "/data/store"):
        assert values(spec=here, volumeMounts=[{"name": "d", "mountPath": path}])["run"]["store"] == here.store


def test_a_request_too_long_for_a_variable_is_refused() -> None:
    many = SPEC.model_copy(update={"instruments": tuple(f"BINANCE:SPOT_PAIR:COIN{n}-USDT" for n in range(5000))})
    with pytest.raises(RunnerError, match="globs"):
        values(spec=many)


def test_an_unknown_placement_names_the_shipped_ones() -> None:
    with pytest.raises(SpecError, match="any, computeclass, spot-highmem"):
        placement("../values")


def test_shipped_files_read_the_same_by_other_readers() -> None:
    for name in ("values.yaml", *(f"placement/{each}.yaml" for each in placements())):
        text = chart().joinpath(name).read_text()
        ours = load_values() if name == "values.yaml" else placement(name.split("/")[1].removesuffix(".yaml"))
        assert without_nulls(yaml.safe_load(text)) == without_nulls(ours)


def test_rights_are_the_least_and_known_to_the_api() -> None:
    documents = list(yaml.safe_load_all((ROOT / "manifests" / "rbac.yaml").read_text()))
    assert [fault for document in documents for fault in faults(document)] == []
    (role,) = [document for document in documents if document["kind"] == "Role"]
    rights = {
        (group, kind): set(r["verbs"]) for r in role["rules"] for group in r["apiGroups"] for kind in r["resources"]
    }
    assert rights == {
        ("batch", "jobs"): {"create", "get", "list", "watch", "patch", "delete"},
        ("", "pods"): {"get", "list", "watch"},
        ("", "pods/log"): {"get"},
        ("", "events"): {"list", "watch"},
        ("", "namespaces"): {"get"},
    }
    bound = {s["name"] for d in documents if d["kind"] == "RoleBinding" for s in d["subjects"]}
    assert bound == {"runner-submitter"}
    (worker,) = [d for d in documents if d["kind"] == "ServiceAccount" and d["metadata"]["name"] not in bound]
    assert worker["automountServiceAccountToken"] is False
