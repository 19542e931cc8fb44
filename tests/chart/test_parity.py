"""Helm and `runner render` make the same Job of the same values: its name, every field, the run's specification."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
import yaml

from runner.backends.kubernetes import render
from runner.backends.kubernetes.values import placements, requests, values_for
from runner.runs.request import offline_id
from runner.spec import RunSpec, resolve
from runner.spec.files import dump
from tests.chart.helm import CHART, IMAGE, ROOT, STORE, as_yaml, helm, objects, template, written
from tests.unit.backends.kubernetes.strict import faults
from tests.unit.backends.kubernetes.test_render import NASTY

pytestmark = pytest.mark.slow
EXAMPLES = sorted((ROOT / "examples").iterdir())
BATCHES, IN_BATCH = 8, 40


def ours(*files: Path) -> dict:
    """Return the Job that our own renderer makes of files with values, as `runner render --values` does."""
    flags = {"backend": "kubernetes", "namespace": "runner"}
    spec = resolve(flags, env={}, cwd=Path("/nonexistent"), layers=requests(files)).spec
    return render.job(values_for(spec, run_id=offline_id(spec), shards=spec.shards, namespace="runner", files=files))


def theirs(*files: Path) -> dict:
    (job,) = template(*itertools.chain.from_iterable(("-f", file) for file in files))
    return job


def spec_of(job: dict) -> str:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (text,) = [entry["value"] for entry in container["env"] if entry["name"] == "RUNNER_SPEC"]
    return text


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("placement", [None, *placements()])
def test_an_example_is_the_same_job(example: Path, placement: str | None, tmp_path: Path) -> None:
    run = {**yaml.safe_load(example.read_text()), "enabled": True, "store": STORE}
    run |= {key: str(run[key]) for key in ("startDate", "endDate")}
    files = [CHART / "placement" / f"{placement}.yaml"] if placement else []
    files.append(written(tmp_path / "values.yaml", {"run": run, "pod": {"image": IMAGE}}))
    assert theirs(*files) == ours(*files)
    if placement is None:
        (manifest,) = objects((ROOT / "manifests" / example.name).read_text())
        assert theirs(*files) == manifest


def test_the_specification_is_the_same_bytes_and_read_back(tmp_path: Path) -> None:
    run = {"enabled": True, "startDate": "2024-08-08", "store": STORE, "instruments": ["B:*:币安$&-*", "A[!X]?"]}
    file = written(tmp_path / "values.yaml", {"run": run, "pod": {"image": IMAGE}})
    text = spec_of(theirs(file))
    assert text == spec_of(ours(file))
    told = text.replace("$$", "$")
    assert RunSpec.from_json(told).to_json() == told


def test_several_files_lie_over_each_other_the_same(tmp_path: Path) -> None:
    first = {
        "run": {"enabled": True, "startDate": "2024-08-08", "store": STORE, "maxInstruments": 5, "shards": 3},
        "pod": {"image": IMAGE, "annotations": None, "nodeSelector": {"a": "b", "c": None}, "tardisKey": None},
    }
    second = {
        "run": {"maxInstruments": None, "tardis": {"stallSeconds": 7}, "parallelism": 9},
        "pod": {"annotations": {"x": "y"}, "resources": {"limits": {"cpu": "1"}}, "tolerations": []},
    }
    third = {"pod": {"nodeSelector": {"a": None, "d": "e"}, "labels": {"runner/run": "other", "team": "data"}}}
    files = [written(tmp_path / f"{n}.yaml", document) for n, document in enumerate((first, second, third))]
    for some in (files[:1], files[:2], files, [files[0], files[2], files[1]]):
        assert theirs(*some) == ours(*some)
    job = theirs(*files)
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"d": "e"}
    assert job["spec"]["template"]["metadata"]["annotations"].keys() == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "x",
    }


class Values:
    """Values that somebody might write: a part of all keys, texts that readers of YAML quarrel over."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.schema = json.loads((CHART / "values.schema.json").read_text())["properties"]

    def text(self) -> str:
        some = "".join(self.random.choices("ab1e0:.-_ {}'\"\\\n\t$#é中\u0085\u2028\ufeff\U0001f680", k=6))
        return self.random.choice([*NASTY, some])

    def texts(self) -> dict:
        return {self.text()[:60] or "k": self.text() for _ in range(self.random.randrange(4))}

    def maybe(self, **fields: object) -> dict:
        return {key: value for key, value in fields.items() if self.random.random() < 0.4}

    def some_of(self, names: list[str]) -> list[str]:
        return self.random.sample(names, self.random.randint(1, len(names)))

    def instruments(self) -> list[str]:
        known = ["BINANCE:*:BTC-*", "*:ETH-USDT", "DERIBIT:OPTION:OPTIONS", "币安人生USDT", "A[!B]?-$&/=()", "0O17"]
        return self.some_of(known)

    def run(self) -> dict:
        fields, pick = self.schema["run"]["properties"], self.random
        day = pick.randrange(1, 29)
        listed = {key: value["items"]["enum"] for key, value in fields.items() if "enum" in value.get("items", {})}
        seconds = {
            key: pick.choice([1, 7, 10**6, 10**9]) for key in ("stallSeconds", "connectSeconds", "backoffSeconds")
        }
        return {
            "enabled": True,
            "store": pick.choice([STORE, "gs://bucket-1.x/ä/$(HOME)/b=c&d", "file:///data/store"]),
            "startDate": f"2024-02-{day:02}",
            **self.maybe(
                endDate=pick.choice([None, f"2024-02-{day + (day < 28):02}", "2025-01-01"]),
                stage=pick.choice(fields["stage"]["enum"]),
                select=pick.choice(fields["select"]["enum"]),
                parent=pick.choice([None, "download-3f9a1c20", "1e3", "yes", "0o17", "null", "-a.@_"]),
                instruments=self.instruments(),
                maxInstruments=pick.choice([None, 1, 10**9]),
                shards=pick.choice([1, 8, 100_000]),
                parallelism=pick.choice([1, 8, 100_000]),
                storeRefusalSeconds=pick.choice([1, 60, 10**9]),
                logFormat=pick.choice(["text", "json"]),
                deep=pick.choice([True, False]),
                tardis=self.maybe(url="http://a.b:8080/c~d", connections=1000, minBytesPerSecond=0, **seconds),
                retry=self.maybe(limit=0, backoffMaxSeconds=360),
                **{key: self.some_of(names) for key, names in listed.items()},
            ),
        }

    def pod(self) -> dict:
        pick = self.random
        return {
            "image": pick.choice([IMAGE, "1e3", "yes", "a@sha256:0"]),
            "volumes": [{"name": self.text(), "emptyDir": {}}],
            "volumeMounts": [{"name": self.text(), "mountPath": "/data/"}],
            **self.maybe(
                labels=pick.choice([None, self.texts()]),
                annotations=pick.choice([None, self.texts(), {**self.texts(), "x": None}]),
                nodeSelector=pick.choice([None, self.texts()]),
                env=[{"name": f"A{n}", "value": self.text()} for n in range(3)],
                envFrom=[{"secretRef": {"name": self.text(), "optional": True}}],
                imagePullPolicy=self.text(),
                imagePullSecrets=[{"name": self.text()}],
                suspend=pick.choice([True, False]),
                activeDeadlineSeconds=pick.choice([None, 0, 1, 2**31, 2**53 - 1]),
                priorityClassName=pick.choice([None, self.text()]),
                serviceAccountName=pick.choice([None, self.text()]),
                tolerations=[{"key": self.text(), "tolerationSeconds": 2**31, "value": None}],
                affinity={self.text()[:60]: [[{"a": self.text()}], [], None, {}, True, 17]},
                resources={"limits": pick.choice([None, {"cpu": self.text(), "memory": None}])},
                scratch=pick.choice([None, {}, {"sizeLimit": None, "medium": self.text()}]),
                securityContext={"fsGroup": pick.choice([None, 0])},
                tardisKey=pick.choice([None, {"secretName": self.text(), "items": None}]),
                topologySpreadConstraints=[],
            ),
        }

    def yaml(self) -> str:
        document = {"run": self.run(), "pod": self.pod()}
        return self.random.choice([as_yaml(document), dump(document, quoted=True)])


@pytest.mark.parametrize("batch", range(BATCHES))
def test_any_values_are_the_same_job(batch: int, tmp_path: Path) -> None:
    for seed in range(batch * IN_BATCH, (batch + 1) * IN_BATCH):
        file = tmp_path / f"{seed}.yaml"
        file.write_text(Values(seed).yaml(), encoding="utf-8")
        job = theirs(file)
        assert job == ours(file), f"seed {seed}"
        # What no schema could take is kept all the same: it is the API that refuses it.
        known = [fault for fault in faults(job) if "too large" not in fault and ".affinity." not in fault]
        assert known == [], f"seed {seed}"


@pytest.mark.parametrize("text", ["yes", "1e3", "0o17", "017", "1_000", "0x1F", "1.5", "true", "~", "off"])
def test_text_without_quotes_is_the_same_or_refused(text: str, tmp_path: Path) -> None:
    """No reader of YAML takes a text for something else without a word."""
    for key in ("labels: {a: %s}", "env: [{name: A, value: %s}]", "nodeSelector: {a: %s}", "imagePullPolicy: %s"):
        file = tmp_path / "values.yaml"
        run = f"run: {{enabled: true, startDate: 2024-08-08, store: {STORE}}}"
        file.write_text(f"{run}\npod:\n  image: {IMAGE}\n  {key % text}\n")
        done = helm("template", "runner", CHART, "-n", "runner", "-f", file)
        if text == "~":
            assert objects(done.stdout)[0] == ours(file), key
        else:
            assert "string" in done.stderr, key
