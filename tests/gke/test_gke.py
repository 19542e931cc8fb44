"""`scripts/gke` against a stand-in that knows the real flags: what it makes, takes away, and only prints."""

import io
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner import logs
from runner.backends.kubernetes.values import load_values, requests

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "scripts" / "lib" / "alerts"
CLOUD = Path(__file__).with_name("cloud.py")
KEY = "fake-key-1"
STAYS = ["artifacts repositories runner", "dataset my-project:market_data", "secrets tardis-api-key"]
STAYS += ["storage buckets gs://my-project-runner"]
LINE = "pipeline day=2024-08-08 verdict={} venues=BINANCE"


@dataclass
class Cloud:
    folder: Path

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "CLOUD": str(self.folder),
            "PROJECT": "my-project",
            "KEY_FILE": str(self.folder / "key"),
            "EMAIL": "ops@example.com",
            **more,
        }
        words = words or ("up",)
        return subprocess.run(
            words if "/" in words[0] else [self.folder / "tree" / "scripts" / "gke", *words],
            env=env,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def state(self) -> dict[str, Any]:
        return json.loads((self.folder / "state.json").read_text())

    def flags(self, thing: str) -> dict[str, list[str]]:
        return self.state["things"][thing]["flags"]

    def spoil(self, *faults: tuple[str, str, bool]) -> None:
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def answers(self, answers: Mapping[str, str]) -> None:
        (self.folder / "answers.json").write_text(json.dumps(answers))


def changing(calls: list[list[str]]) -> list[list[str]]:
    verbs = {
        "create",
        "delete",
        "mk",
        "enable",
        "add-iam-policy-binding",
        "remove-iam-policy-binding",
        "get-credentials",
    }
    return [call for call in calls if verbs & set(call)]


def made(folder: Path) -> Cloud:
    """Return a cloud with nothing in it, and a tree of its own for what the script writes."""
    (folder / "bin").mkdir(parents=True)
    for name in ("gcloud", "bq"):
        stand_in = folder / "bin" / name
        stand_in.write_text(f'#!/bin/sh\nPROGRAM={name} exec {sys.executable} -I -S {CLOUD} "$@"\n')
        stand_in.chmod(0o755)
    (folder / "tree").mkdir()
    (folder / "tree" / "scripts").symlink_to(ROOT / "scripts")
    (folder / "key").write_text(f"{KEY}\n")
    return Cloud(folder)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return made(tmp_path / "cloud")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cloud, subprocess.CompletedProcess[str]]:
    """Return a cloud that `up` has made whole once, and what it said; tests do not change it."""
    cloud = made(tmp_path_factory.mktemp("up") / "cloud")
    done = cloud.run("up")
    assert done.returncode == 0, done.stdout + done.stderr
    return cloud, done


@pytest.mark.slow
def test_nodes_leave_by_one_address_and_have_none_of_their_own(up: tuple[Cloud, object]) -> None:
    cloud, _ = up
    cluster, nat = cloud.flags("container clusters runner"), cloud.flags("compute routers nats runner")
    assert {"--enable-private-nodes", "--no-enable-ip-access", "--enable-dataplane-v2"} <= set(cluster)
    assert nat["--nat-external-ip-pool"] == ["runner-egress"]
    assert "--nat-all-subnet-ip-ranges" in nat
    assert "--auto-allocate-nat-external-ips" not in nat
    assert [name for name in cloud.state["things"] if name.startswith("compute addresses")] == [
        "compute addresses runner-egress"
    ]


@pytest.mark.slow
def test_the_pool_is_what_the_placement_asks_for(up: tuple[Cloud, object]) -> None:
    cloud, _ = up
    pool = cloud.flags("container node-pools spot-highmem")
    assert "--spot" in pool
    assert pool["--node-taints"] == ["cloud.google.com/gke-spot=true:NoSchedule"]
    assert "-highmem-" in pool["--machine-type"][0]
    assert pool["--total-min-nodes"] == ["0"]
    assert pool["--workload-metadata"] == ["GKE_METADATA"]


@pytest.mark.slow
def test_pods_are_who_they_are_without_key_files(up: tuple[Cloud, object]) -> None:
    cloud, _ = up
    pods = "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/"
    pods += "my-project.svc.id.goog/subject/ns/runner/sa/"
    granted = [role for role in cloud.state["bindings"] if role[0].startswith("storage buckets")]
    bucket, role = "storage buckets gs://my-project-runner", "roles/storage.objectUser"
    assert granted == [[bucket, role, f"{pods}runner-pipeline"], [bucket, role, f"{pods}runner-worker"]]
    assert cloud.flags("container clusters runner")["--workload-pool"] == ["my-project.svc.id.goog"]
    assert not [call for call in cloud.calls if "keys" in call]


@pytest.mark.slow
def test_the_key_is_on_no_command_line_and_in_no_output(up: tuple[Cloud, subprocess.CompletedProcess[str]]) -> None:
    cloud, done = up
    assert cloud.flags("secrets tardis-api-key")["--data-file"] == [str(cloud.folder / "key")]
    log = (cloud.folder / "tree" / ".runner" / "gke" / "log").read_text()
    assert KEY not in json.dumps(cloud.calls) + done.stdout + done.stderr + log


@pytest.mark.slow
def test_both_alerts_the_budget_and_what_comes_next_are_there(
    up: tuple[Cloud, subprocess.CompletedProcess[str]],
) -> None:
    cloud, done = up
    titles = {thing["title"] for thing in cloud.state["things"].values()}
    assert {"runner: incomplete", "runner: silent", "runner-my-project"} <= titles
    assert "logging metrics runner-complete" in cloud.state["things"]
    policy = next(thing for name, thing in cloud.state["things"].items() if thing["title"] == "runner: silent")
    assert policy["flags"]["--notification-channels"][0].startswith("channels/")
    assert "sed -E 's/^( *name(space)?): runner$/\\1: runner/' manifests/rbac.yaml | kubectl apply -f -" in done.stdout
    words = "helm install runner charts/runner -n runner --take-ownership --set install.enabled=true \\\n"
    assert f"{words}    -f charts/runner/placement/spot-highmem.yaml -f .runner/gke/values.yaml" in done.stdout
    assert "runner doctor --backend kubernetes -n runner --placement spot-highmem --values" in done.stdout


@pytest.mark.slow
def test_the_values_that_are_written_are_values_of_runs(up: tuple[Cloud, object]) -> None:
    cloud, _ = up
    file = cloud.folder / "tree" / ".runner" / "gke" / "values.yaml"
    pod = load_values([file])["pod"]
    assert pod["serviceAccountName"] == "runner-worker"
    assert pod["image"] == "europe-west1-docker.pkg.dev/my-project/runner/runner:0.1.0"
    assert requests([file])[0][1] == {"store": "gs://my-project-runner/market-data"}


@pytest.mark.slow
def test_what_is_there_stays_as_it_is(cloud: Cloud) -> None:
    assert cloud.run("up").returncode == 0
    before, count = cloud.state, len(cloud.calls)
    again = cloud.run("up")
    assert again.returncode == 0, again.stderr
    assert cloud.state == before
    assert not [call for call in cloud.calls[count:] if {"create", "delete", "mk"} & set(call)]
    assert again.stdout.count("is there") >= 12


@pytest.mark.slow
def test_down_takes_away_what_costs_and_names_what_stays(cloud: Cloud) -> None:
    assert cloud.run("up").returncode == 0
    done = cloud.run("down")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(cloud.state["things"]) == STAYS
    assert not [each for each in cloud.state["bindings"] if each[0].startswith("projects")]
    for name in ("gs://my-project-runner", "my-project:market_data", "repositories delete runner", "tardis-api-key"):
        assert name in done.stdout
    count = len(cloud.calls)
    assert cloud.run("down").returncode == 0
    assert not changing(cloud.calls[count:])
    up_again = cloud.run("up")
    assert up_again.returncode == 0, up_again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "moment"),
    [("nats create", "before"), ("clusters create", "after"), ("mk --dataset", "before"), ("policies create", "after")],
)
def test_a_failure_anywhere_is_told_and_the_same_again_goes_on(
    cloud: Cloud, up: tuple[Cloud, object], text: str, moment: str
) -> None:
    whole, _ = up
    cloud.spoil((text, "503: the answer was lost", moment == "after"))
    failed = cloud.run("up")
    assert failed.returncode == 1
    assert "503: the answer was lost" in failed.stderr
    assert "what to do:" in failed.stderr
    cloud.spoil()
    done = cloud.run("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert things(cloud) == things(whole)
    assert cloud.state["bindings"] == whole.state["bindings"]


@pytest.mark.slow
def test_a_listing_that_fails_makes_no_second_alert(cloud: Cloud) -> None:
    cloud.spoil(("policies list", "403: Permission monitoring.alertPolicies.list denied", False))
    failed = cloud.run("up")
    assert failed.returncode == 1
    assert "monitoring.alertPolicies.list denied" in failed.stderr
    assert not [call for call in cloud.calls if "policies" in call and "create" in call]


def things(cloud: Cloud) -> list[str]:
    """Return what there is, what the server names by its title."""
    return sorted(thing["title"] or name for name, thing in cloud.state["things"].items())


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_dry_run_asks_nobody_and_prints_what_is_done(up: tuple[Cloud, object], tmp_path: Path, verb: str) -> None:
    whole, _ = up
    dry = made(tmp_path / "dry")
    printed = dry.run(verb, "--dry-run")
    assert printed.returncode == 0, printed.stderr
    assert dry.calls == []
    lines = [shlex.split(line) for line in printed.stdout.splitlines()]
    lines = [line[2:] if line[0] == "env" else line for line in lines]
    if verb == "up":
        known = {
            "PROJECT_NUMBER": "123456789012",
            "ACCOUNT": "000000-AAAAAA-BBBBBB",
            str(dry.folder): str(whole.folder),
        }
        text = json.dumps(lines)
        for placeholder, value in known.items():
            text = text.replace(placeholder, value)
        real = [[re.sub(r"^channels/\d+$", "CHANNEL", word) for word in call] for call in changing(whole.calls)]
        assert json.loads(text) == real
    else:
        order = [line[line.index("delete") - 1] for line in lines[:6]]
        assert order == ["clusters", "nats", "routers", "addresses", "subnets", "networks"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "words"),
    [({"value(natIps.len())": "2"}, "has 2 addresses"), ({"value(status)": "PROVISIONING"}, "still being made")],
)
def test_what_would_break_runs_later_stops_it_now(cloud: Cloud, answers: dict[str, str], words: str) -> None:
    cloud.answers(answers)
    stopped = cloud.run("up")
    assert stopped.returncode == 1
    assert words in stopped.stderr
    assert "what to do:" in stopped.stderr


def test_an_error_is_not_taken_for_absence(cloud: Cloud) -> None:
    cloud.spoil(("networks describe", "403: Required 'compute.networks.get' permission", False))
    refused = cloud.run("up")
    assert refused.returncode == 1
    assert "compute.networks.get" in refused.stderr
    assert not [call for call in cloud.calls if "create" in call]


@pytest.mark.parametrize("words", [("sideways",), ("up", "--dryrun"), ("up", "--dry-run", "more")])
def test_wrong_usage_is_exit_2_with_the_right_one(cloud: Cloud, words: tuple[str, ...]) -> None:
    done = cloud.run(*words)
    assert done.returncode == 2
    assert "scripts/gke up [--dry-run]" in done.stderr
    assert cloud.calls == []


def test_no_project_is_exit_2(cloud: Cloud) -> None:
    done = cloud.run("up", PROJECT="")
    assert done.returncode == 2
    assert "PROJECT is not set" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gcloud", "compute", "networks", "create", "x", "--subnet-mod", "custom"), "unrecognized arguments"),
        (("gcloud", "compute", "networks", "create", "x", "--subnet-mode", "odd"), "Invalid choice"),
        (("gcloud", "compute", "networks", "crate", "x"), "Invalid choice"),
        (("gcloud", "compute", "routers", "create", "x", "--region", "r", "--network", "x"), "SERVICE_DISABLED"),
    ],
)
def test_the_stand_in_refuses_what_the_real_one_does(cloud: Cloud, words: tuple[str, ...], message: str) -> None:
    done = cloud.run(f"{cloud.folder}/bin/{words[0]}", *words[1:])
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("pipeline day=2024-08-08 verdict=complete", True),
        # As said where there was nothing to do for it, as when somebody had done it by hand.
        ("pipeline newest=2024-08-08 verdict=complete", True),
        # Of each of the days before, every morning: of a pipeline that stands still too.
        ("pipeline day=2024-08-07 verdict=complete: nothing to do", False),
        ("pipeline day=2024-08-08 verdict=incomplete venues=BINANCE", False),
        ("pipeline day=2024-08-08 run=pipeline-3f9a1c20", False),
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_silence_ends_with_a_day_that_came_to_be_complete(line: str, counts: bool, form: str) -> None:  # noqa: FBT001
    """By lines as they are written, a newline at the end of some."""
    told, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    logs.setup(form, "INFO", told)
    logging.getLogger("runner.pipeline").info("%s", line)
    root.handlers[:], root.level = before
    written = told.getvalue()
    payload = json.loads(written)["message"] if form == "json" else written
    rule = (ALERTS / "complete").read_text()
    fields = dict(re.findall(r'([a-zA-Z.]+)=~"([^"]*)"', rule))
    assert set(fields) == {"textPayload", "jsonPayload.message"}
    pattern = fields["textPayload" if form == "text" else "jsonPayload.message"]
    assert [bool(re.search(pattern, each)) for each in (payload, payload.rstrip("\n"))] == [counts, counts]


def test_alerts_match_the_lines_that_pipelines_write() -> None:
    incomplete = json.loads((ALERTS / "incomplete.json").read_text())
    (condition,) = incomplete["conditions"]  # of a log-matching one there can be no second
    assert incomplete["alertStrategy"]["notificationRateLimit"]
    (no,) = set(re.findall(r'"(pipeline day=[^"]*)"', condition["conditionMatchedLog"]["filter"]))
    (yes,) = set(re.findall(r'"(pipeline [^"]*)"', (ALERTS / "complete").read_text()))
    for verdict in ("incomplete", "refused"):
        assert [bool(re.search(each, LINE.format(verdict))) for each in (yes, no)] == [False, True]
    silent = json.loads((ALERTS / "silent.json").read_text())
    assert "user_runner_complete[26h]" in silent["conditions"][0]["conditionPrometheusQueryLanguage"]["query"]
