"""What the chart makes for good in a namespace: known to the API, with the least rights, hardened, told what to do."""

from __future__ import annotations

import http.server
import ipaddress
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import yaml

from runner.backends.kubernetes import render
from runner.backends.kubernetes.values import load_values, placements
from runner.spec import resolve
from tests.chart.helm import CHART, IMAGE, ROOT, STORE, helm, objects, refusal, template, written
from tests.unit.backends.kubernetes.strict import faults
from tests.unit.backends.kubernetes.test_render import NASTY

pytestmark = pytest.mark.slow
INSTALL = ("--set", f"install.enabled=true,pod.image={IMAGE},run.store={STORE}")
RUN = ("--set", f"run.enabled=true,run.startDate=2024-08-01,pod.image={IMAGE},run.store={STORE}")


def by_kind(made: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for each in made:
        found.setdefault(each["kind"], []).append(each)
    return found


@pytest.fixture(scope="module")
def installed() -> dict[str, list[dict]]:
    return by_kind(template(*INSTALL))


def one(made: dict[str, list[dict]], kind: str) -> dict:
    (only,) = made[kind]
    return only


def pod_of(made: dict[str, list[dict]]) -> dict:
    return one(made, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_helm_finds_nothing_to_say_against_the_chart() -> None:
    for words in ((), RUN, INSTALL):
        done = helm("lint", "--strict", CHART, *words)
        assert done.returncode == 0, done.stdout


def test_the_api_knows_every_field(installed: dict) -> None:
    kinds = {"ServiceAccount": 3, "Role": 1, "RoleBinding": 1, "ConfigMap": 1, "CronJob": 1, "NetworkPolicy": 1}
    assert {kind: len(made) for kind, made in installed.items()} == kinds
    assert [fault for made in installed.values() for each in made for fault in faults(each)] == []
    assert {each["metadata"]["namespace"] for made in installed.values() for each in made} == {"runner"}


def test_nothing_is_made_unasked_and_not_two_things_in_one_release() -> None:
    assert template() == []
    assert "one release is one run" in refusal(*RUN, "--set", "install.enabled=true")


def test_rights_are_the_least(installed: dict) -> None:
    role = one(installed, "Role")
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
    bound = {subject["name"] for subject in one(installed, "RoleBinding")["subjects"]}
    assert bound == {"runner-submitter", "runner-pipeline"}
    assert {each["metadata"]["name"] for each in installed["ServiceAccount"]} - bound == {"runner-worker"}
    assert all(each["automountServiceAccountToken"] is False for each in installed["ServiceAccount"])


def test_without_the_pipeline_nobody_is_it() -> None:
    made = by_kind(template(*INSTALL, "--set", "install.pipeline.enabled=false"))
    assert not {"CronJob", "ConfigMap"} & set(made)
    assert [each["metadata"]["name"] for each in made["ServiceAccount"]] == ["runner-submitter", "runner-worker"]
    assert [subject["name"] for subject in one(made, "RoleBinding")["subjects"]] == ["runner-submitter"]


def test_accounts_have_the_names_and_annotations_given(tmp_path: Path) -> None:
    worker = {"name": "bytes", "annotations": {"iam.gke.io/gcp-service-account": "a@b.iam.gserviceaccount.com"}}
    file = written(tmp_path / "values.yaml", {"install": {"serviceAccounts": {"worker": worker}}})
    made = by_kind(template(*INSTALL, "-f", file))
    (account,) = [each for each in made["ServiceAccount"] if each["metadata"]["name"] == "bytes"]
    assert account["metadata"]["annotations"] == worker["annotations"]
    pod = yaml.safe_load(one(made, "ConfigMap")["data"]["values.yaml"])["pod"]
    assert pod["serviceAccountName"] == "bytes"


def test_every_morning_once_and_failed_only_for_what_another_try_cannot_mend(installed: dict) -> None:
    spec = one(installed, "CronJob")["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 8 * * *", "Etc/UTC", "Forbid")
    job = spec["jobTemplate"]["spec"]
    assert job["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "pipeline", "operator": "In", "values": [2, 3, 4, 5, 130]},
        },
    ]
    assert [each["name"] for each in job["template"]["spec"]["containers"]] == ["pipeline"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    # Whatever it waits for, it is over before the next one begins.
    assert job["activeDeadlineSeconds"] < 24 * 3600
    assert spec["startingDeadlineSeconds"] < 24 * 3600


def test_a_lost_node_is_given_up_by_the_pipeline_as_soon_as_by_its_runs(installed: dict) -> None:
    seconds = {each["key"]: each["tolerationSeconds"] for each in pod_of(installed)["tolerations"]}
    assert seconds == {"node.kubernetes.io/not-ready": 60, "node.kubernetes.io/unreachable": 60}
    (job,) = template(*RUN)
    assert job["spec"]["template"]["spec"]["tolerations"] == pod_of(installed)["tolerations"]


def test_the_pipeline_finds_its_settings_and_its_own_job(installed: dict) -> None:
    (container,) = pod_of(installed)["containers"]
    assert container["args"] == [
        *("pipeline", "--day", "auto", "--backend", "kubernetes"),
        *("--file", "/etc/runner/run.yaml", "--values", "/etc/runner/values.yaml"),
    ]
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == "/etc/runner"]
    (volume,) = [each for each in pod_of(installed)["volumes"] if each["name"] == mount["name"]]
    config = one(installed, "ConfigMap")
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert set(config["data"]) == {"run.yaml", "values.yaml"}
    env = {entry["name"]: entry for entry in container["env"]}
    path = env["RUNNER_JOB"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.labels['batch.kubernetes.io/job-name']"
    places = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert env["HOME"]["value"] in places


def test_the_key_is_a_mounted_file_of_a_secret_that_is_not_ours(installed: dict) -> None:
    (container,) = pod_of(installed)["containers"]
    (volume,) = [each for each in pod_of(installed)["volumes"] if "secret" in each]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == volume["name"]]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env["TARDIS_API_KEY_FILE"] == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    assert "Secret" not in installed
    made = by_kind(template(*INSTALL, "--set", "pod.tardisKey=null"))
    assert "TARDIS_API_KEY" not in str(made)


def test_the_pipelines_pod_is_within_the_restricted_standard(installed: dict) -> None:
    """By the table of kubernetes.io/docs/concepts/security/pod-security-standards."""
    pod = pod_of(installed)
    (container,) = pod["containers"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
    resources = container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    # It alone speaks to the cluster.
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("runner-pipeline", True)


def allows(policy: dict, address: str, protocol: str, port: int) -> bool:
    """Tell whether a policy lets something out, by the rules of kubernetes.io/docs/concepts/services-networking."""
    for rule in policy["spec"]["egress"]:
        is_port = any((each["protocol"], each["port"]) == (protocol, port) for each in rule["ports"])
        blocks = [ipaddress.ip_network(peer["ipBlock"]["cidr"]) for peer in rule.get("to", ())]
        if is_port and (not blocks or any(ipaddress.ip_address(address) in block for block in blocks)):
            return True
    return False


def test_nothing_comes_in_and_out_go_names_https_and_the_metadata_server(installed: dict) -> None:
    policy = one(installed, "NetworkPolicy")
    assert (policy["spec"]["policyTypes"], policy["spec"]["ingress"]) == (["Ingress", "Egress"], [])
    open_ = [
        ("10.0.0.10", "UDP", 53),
        ("10.0.0.10", "TCP", 53),
        ("104.18.0.1", "TCP", 443),
        ("169.254.169.254", "TCP", 80),
        ("169.254.169.252", "TCP", 988),
    ]
    assert all(allows(policy, *each) for each in open_)
    shut = [
        ("10.0.0.10", "TCP", 80),
        ("169.254.169.254", "TCP", 988),
        ("104.18.0.1", "UDP", 443),
        ("1.1.1.1", "TCP", 8080),
    ]
    assert not any(allows(policy, *each) for each in shut)
    wider = one(by_kind(template(*INSTALL, "--set", "install.networkPolicy.ports={8080,6443}")), "NetworkPolicy")
    assert allows(wider, "10.1.1.1", "TCP", 8080)
    assert faults(wider) == []
    assert "NetworkPolicy" not in by_kind(template(*INSTALL, "--set", "install.networkPolicy.enabled=false"))


def test_the_policy_is_for_the_pods_of_both(installed: dict) -> None:
    chosen = one(installed, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    pipeline = one(installed, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    (job,) = template(*RUN)
    assert chosen <= pipeline.items()
    assert chosen <= job["spec"]["template"]["metadata"]["labels"].items()
    # And nobody takes the pipeline's pod for a worker of a run.
    assert pipeline["app.kubernetes.io/component"] == "pipeline"


@pytest.mark.parametrize("placement", [None, *placements()])
def test_runs_of_the_pipeline_get_the_pods_that_the_values_say(placement: str | None, tmp_path: Path) -> None:
    """Nulls, defaults that are taken away and texts that readers quarrel over arrive as they were meant."""
    given = {
        "pod": {
            "annotations": dict(enumerate_texts()),
            "env": [{"name": f"A{n}", "value": text} for n, text in enumerate(NASTY)],
            "securityContext": {"fsGroup": None},
            "tardisKey": None,
            "priorityClassName": "1e3",
            "affinity": {},
        }
    }
    files = [CHART / "placement" / f"{placement}.yaml"] if placement else []
    files.append(written(tmp_path / "values.yaml", given))
    made = by_kind(template(*INSTALL, *(word for file in files for word in ("-f", file))))
    told = tmp_path / "told.yaml"
    told.write_text(one(made, "ConfigMap")["data"]["values.yaml"], encoding="utf-8")
    meant = load_values([*files, {"pod": {"image": IMAGE, "serviceAccountName": "runner-worker"}}])["pod"]
    assert load_values([told])["pod"] == meant
    (container,) = pod_of(made)["containers"]
    assert [entry["value"] for entry in container["env"][-len(NASTY) :]] == NASTY


def enumerate_texts() -> Iterator[tuple[str, str]]:
    return ((text[:60], text) for text in NASTY if text)


def test_the_run_file_of_the_pipeline_is_what_the_values_say(tmp_path: Path) -> None:
    run = {"instruments": ["币安:*", "BINANCE:*:BTC-$&<"[:-1]], "tardis": {"stallSeconds": 10**6}, "shards": 3}
    made = by_kind(template(*INSTALL, "-f", written(tmp_path / "values.yaml", {"run": run})))
    (tmp_path / "run.yaml").write_text(one(made, "ConfigMap")["data"]["run.yaml"], encoding="utf-8")
    spec = resolve({}, Path("run.yaml"), env={}, cwd=tmp_path).spec
    assert spec == resolve({**run_flags(run), "store": STORE}, env={}, cwd=tmp_path).spec
    assert "the pipeline finds its days itself" in refusal(*INSTALL, "--set", "run.startDate=2024-08-01")


def run_flags(run: dict) -> dict[str, object]:
    flat = {key: value for key, value in run.items() if not isinstance(value, dict)}
    return {**flat, "tardis.stallSeconds": run["tardis"]["stallSeconds"]}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("install.pipeline.schedule=daily", "schedule"),
        ("install.pipeline.shedule=x", "shedule"),
        ("install.networkPolicy.ports={0}", "ports"),
        ("install.serviceAccounts.worker.name=A_B", "name"),
        ("pod.image=", "pod.image: no image is configured"),
        ("run.store=", "run.store: no store is configured"),
        ("run.store=file:///data", "no pod sees it"),
        ("run.stage=pipeline", "/run/stage"),
        ("run.shards=0", "/run/shards"),
        ("run.venues={binance}", "/run/venues/0"),
        ("run.instruments={btc-usdt}", "/run/instruments/0"),
        ("run.tardis.stallSeconds=0.5", "/run/tardis/stallSeconds"),
        ("run.image=x", "/run"),
        ("pod.resources.limits.cpu=0", "."),
    ],
)
def test_what_helm_cannot_tidy_it_refuses_and_says_where(words: str, why: str) -> None:
    if why == ".":
        assert template(*INSTALL, "--set", words)
    else:
        assert why in refusal(*INSTALL, "--set", words)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("run.startDate=null", "newest day is known to the source alone"),
        ("run.startDate=2023-02-29", "2023-02-29 is not a day of the calendar"),
        ("run.startDate=2024-8-1", "/run/startDate"),
        ("run.endDate=2024-07-31", "is before run.startDate"),
        ("run.endDate=2035-07-15", "split the request"),
        ("pod.env[0].name=RUNNER_SPEC,pod.env[0].value=x", "pod.env names RUNNER_SPEC"),
        ("pod.env[0].name=TARDIS_API_KEY,pod.env[0].value=x", "pod.env names TARDIS_API_KEY"),
    ],
)
def test_a_run_that_cannot_be_is_refused(words: str, why: str) -> None:
    assert why in refusal(*RUN, "--set", words)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Sao_Paulo"])
def test_the_longest_range_is_the_same_everywhere(zone: str) -> None:
    words = ("template", "a", CHART, *RUN, "--set")
    assert helm(*words, "run.startDate=2016-10-16,run.endDate=2027-09-28", env={"TZ": zone}).returncode == 0
    assert helm(*words, "run.startDate=2016-10-16,run.endDate=2027-09-29", env={"TZ": zone}).returncode == 1


def test_a_request_too_long_for_a_variable_is_refused(tmp_path: Path) -> None:
    many = [f"BINANCE:SPOT_PAIR:COIN{n}-USDT" for n in range(5000)]
    assert "name instruments by globs" in refusal(*RUN, "-f", written(tmp_path / "v", {"run": {"instruments": many}}))


def serves(there: Iterable[dict] = ()) -> AbstractContextManager[str]:
    """Serve what helm asks a cluster before a dry run: its version, its kinds, and the objects that are there."""
    kinds = {
        "v1": ("ServiceAccount", "ConfigMap"),
        "batch/v1": ("Job", "CronJob"),
        "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
        "networking.k8s.io/v1": ("NetworkPolicy",),
    }
    groups = [
        {"name": each.split("/")[0], "versions": [{"groupVersion": each, "version": "v1"}]}
        for each in kinds
        if "/" in each
    ]
    answers: dict[str, object] = {
        "/version": {"major": "1", "minor": "35", "gitVersion": "v1.35.4"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }
    for version, names in kinds.items():
        listed = [{"name": f"{name.lower()}s", "kind": name, "namespaced": True, "verbs": ["get"]} for name in names]
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        answers[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": listed}

    for each in there:
        version, metadata = each["apiVersion"], each["metadata"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        answers[f"{root}/namespaces/{metadata['namespace']}/{each['kind'].lower()}s/{metadata['name']}"] = each
    return answering(answers)


@contextmanager
def answering(answers: Mapping[str, object]) -> Iterator[str]:
    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.split("?")[0])
            body = json.dumps(found or {"kind": "Status", "code": 404, "reason": "NotFound"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with serves() as address:
        yield address


def notes(cluster: str, *words: str, tmp_path: Path) -> str:
    flags = ("--dry-run=client", "--disable-openapi-validation", "--kube-apiserver", cluster, "-n", "data")
    done = helm("install", "market", CHART, *flags, *words, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:\n")[2]


def test_the_notes_say_what_to_do_next(cluster: str, tmp_path: Path) -> None:
    (job,) = template(*RUN, release="market", namespace="data")
    run = job["metadata"]["name"]
    said = notes(cluster, *RUN, tmp_path=tmp_path)
    assert f"runner status {run} -w -n data --store {STORE}" in said
    assert "create secret generic tardis-api-key --from-file=key=FILE" in said
    made = by_kind(template(*INSTALL, release="market", namespace="data"))
    name = one(made, "CronJob")["metadata"]["name"]
    said = notes(cluster, *INSTALL, tmp_path=tmp_path)
    assert f"kubectl -n data create job --from=cronjob/{name} {name}-now" in said
    assert f'patch cronjob {name} -p \'{{"spec": {{"suspend": true}}}}\'' in said
    assert "enforces policies" in said
    assert "Nothing was made" in notes(cluster, tmp_path=tmp_path)


@pytest.mark.parametrize("document", ["README.md", "charts/runner/values.yaml", "scripts/gke"])
def test_the_chart_is_installed_where_the_accounts_were_made_before(document: str, tmp_path: Path) -> None:
    """As the documents say it: rbac.yaml first, for who submits by hand, then Helm."""
    text = re.sub(r"\\+\n", " ", (ROOT / document).read_text())
    (line,) = re.findall(r"^[# ]*(helm install runner .*install\.enabled=true.*)$", text, flags=re.MULTILINE)
    line = line.replace("$namespace", "runner").partition("    #")[0]
    flags = [word for word in shlex.split(line)[4:] if word == "--take-ownership"]
    made = [each for each in objects((ROOT / "manifests/rbac.yaml").read_text()) if each["kind"] != "Namespace"]
    dry = ("--dry-run=client", "--disable-openapi-validation", "-n", "runner")
    with serves(made) as address:
        words = ("install", "runner", CHART, *dry, "--kube-apiserver", address, *INSTALL)
        refused = helm(*words, env={"HOME": str(tmp_path)})
        done = helm(*words, *flags, env={"HOME": str(tmp_path)})
    assert "invalid ownership metadata" in refused.stderr, "the flag is needed for nothing"
    assert done.returncode == 0, done.stderr


def test_a_long_release_still_has_names_that_kubernetes_takes() -> None:
    made = by_kind(template(*INSTALL, release="a" * 53))
    # A CronJob's Jobs get eleven characters more.
    assert len(one(made, "CronJob")["metadata"]["name"]) <= 52


def test_manifests_are_what_the_chart_makes() -> None:
    made = template(*INSTALL)
    namespace, *rest = objects((ROOT / "manifests" / "install.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert rest == made
    accounts = [each for each in made if each["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
    rbac = objects((ROOT / "manifests" / "rbac.yaml").read_text())
    assert [each["kind"] for each in rbac[1:]] == ["ServiceAccount", "ServiceAccount", "Role", "RoleBinding"]
    assert [each for each in rbac if each["kind"] == "Role"] == [e for e in accounts if e["kind"] == "Role"]
    assert all(faults(each) == [] for each in (namespace, *rest, *rbac))


def test_texts_are_printable_in_what_helm_writes(tmp_path: Path) -> None:
    file = written(tmp_path / "values.yaml", {"pod": {"annotations": {"a": "\x85\u2028\ufeff\x7f"}}})
    done = helm("template", "a", CHART, *RUN, "-f", file)
    assert done.returncode == 0, done.stderr
    assert not {"\x85", "\u2028", "\ufeff", "\x7f"} & set(done.stdout)
    assert render.to_json("\x85") == '"\\u0085"'


def test_the_command_of_the_pipeline_is_understood(installed: dict, tmp_path: Path) -> None:
    """With its own settings, and no cluster to ask: that is all it has to say."""
    for name, text in one(installed, "ConfigMap")["data"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (container,) = pod_of(installed)["containers"]
    words = [word.replace("/etc/runner", str(tmp_path)) for word in container["args"]]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RUNNER_JOB": "runner-pipeline-1"}
    command = [sys.executable, "-m", "runner", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("error: no cluster is configured"), done.stderr
