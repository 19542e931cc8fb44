"""The cluster's API over a real socket: pages, errors with the way out, tokens that expire, connections that break."""

import json
import stat
import sys

import pytest
import yaml

from runner.backends.kubernetes.client import Client, GoneError
from runner.errors import ConfigError, NotAllowedError, TransientError
from tests.unit.backends.kubernetes.api import Fault

JOBS = "/apis/batch/v1/namespaces/market/jobs"
PODS = "/api/v1/namespaces/market/pods"


def pod(name, **labels):
    return {"metadata": {"name": name, "labels": labels}}


def test_context_and_namespace_are_the_kubeconfigs_own(client, api) -> None:
    assert (client.context, client.namespace, client.server) == ("here", "market", api.url)


def test_a_context_that_is_not_there_is_named_with_those_that_are(api, tmp_path) -> None:
    with pytest.raises(ConfigError, match="context there: not in the kubeconfig, which has here"):
        Client(kubeconfig=api.kubeconfig(tmp_path, {"token": "fake-token-1"}), context="there")


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: .*--kubeconfig"):
        Client(kubeconfig=str(tmp_path / "nowhere"))


def test_a_listing_has_every_page_and_only_what_is_selected(client, api) -> None:
    for number in range(5):
        api.put("pods", pod(f"p{number}", run="a"))
    api.put("pods", pod("other", run="b"))
    found = client.list("pods", labels="run=a")
    assert [each["metadata"]["name"] for each in found.items] == ["p0", "p1", "p2", "p3", "p4"]
    assert found.version == "6"
    assert api.seen(f"GET {PODS}") == 3


def test_what_is_not_there_is_none_and_what_exists_is_not_made_twice(client, api) -> None:
    assert client.get("jobs", "a") is None
    assert client.patch("jobs", "a", {"spec": {"suspend": True}}) is None
    assert not client.delete("jobs", "a")
    assert client.create("jobs", pod("a"))["metadata"]["uid"] == "uid-1"
    assert client.create("jobs", pod("a")) is None
    assert client.patch("jobs", "a", {"spec": {"suspend": True}})["spec"] == {"suspend": True}
    assert client.delete("jobs", "a")
    assert api.objects["jobs"] == {}
    assert api.bodies[-1] == {"propagationPolicy": "Background"}


def test_a_dry_run_makes_nothing(client, api) -> None:
    assert client.create("jobs", pod("a"), dry_run=True)["dry"]
    assert api.objects["jobs"] == {}


def test_a_missing_verb_is_named_with_the_rule_that_allows_it(client, api) -> None:
    api.faults.append(Fault(f"POST {JOBS}", 403, 'jobs.batch is forbidden: User "ci" cannot create resource "jobs"'))
    with pytest.raises(NotAllowedError) as caught:
        client.create("jobs", pod("a"))
    assert "create jobs in namespace market" in str(caught.value)
    assert '{apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]}' in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "request_", "rule"),
    [
        (lambda c: c.list("pods"), f"GET {PODS}", '{apiGroups: [""], resources: ["pods"], verbs: ["list"]}'),
        (lambda c: c.log("p"), f"GET {PODS}/p/log", '{apiGroups: [""], resources: ["pods/log"], verbs: ["get"]}'),
        (lambda c: c.watch("pods", "1", seconds=1), f"WATCH {PODS}", 'resources: ["pods"], verbs: ["watch"]}'),
        (lambda c: c.delete("jobs", "a"), f"DELETE {JOBS}/a", 'resources: ["jobs"], verbs: ["delete"]}'),
        (lambda c: c.patch("jobs", "a", {"x": 1}), f"PATCH {JOBS}/a", 'resources: ["jobs"], verbs: ["patch"]}'),
    ],
)
def test_each_verb_has_its_rule(client, api, ask, request_, rule) -> None:
    api.faults.append(Fault(request_, 403))
    with pytest.raises(NotAllowedError) as caught:
        ask(client)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        'jobs.batch "a" is forbidden: exceeded quota: few, requested: count/jobs.batch=1, used: 1, limited: 1',
        'jobs.batch "a" is forbidden: unable to create new content in namespace market because it is being terminated',
        'admission webhook "policy.example" denied the request: no image from there',
    ],
)
def test_what_admission_forbids_is_not_told_as_a_missing_right(client, api, message) -> None:
    api.faults.append(Fault(f"POST {JOBS}", 403, message))
    with pytest.raises(ConfigError) as caught:
        client.create("jobs", pod("a"))
    assert message in str(caught.value)
    assert "Role" not in str(caught.value)


def test_a_refusal_right_after_a_lost_connection_is_no_verdict(client, api) -> None:
    api.faults += [Fault(f"GET {PODS}", 0), Fault(f"GET {PODS}", 403)]
    for _ in range(2):
        with pytest.raises(TransientError):
            client.list("pods")
    assert client.list("pods").items == ()


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_worth_another_try(client, api, code) -> None:
    api.faults.append(Fault(f"GET {PODS}", code))
    with pytest.raises(TransientError):
        client.list("pods")


def test_a_body_that_the_server_refuses_is_said_in_its_words(client, api) -> None:
    api.faults.append(Fault(f"POST {JOBS}", 422, "Job.batch is invalid: spec.completions: must be positive"))
    with pytest.raises(ConfigError, match=r"create jobs .* spec\.completions: must be positive"):
        client.create("jobs", pod("a"))


def test_nobody_listening_is_transient_and_named(api, tmp_path) -> None:
    api.url = "http://127.0.0.1:9"
    client = Client(kubeconfig=api.kubeconfig(tmp_path, {"token": "fake-token-1"}))
    with pytest.raises(TransientError, match=r"cluster http://127\.0\.0\.1:9: no answer"):
        client.get("jobs", "a")


def test_a_token_that_the_server_no_longer_takes_is_fetched_anew(api, tmp_path) -> None:
    """The plugin counts its calls: each token is another one, and the server takes only the newest."""
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib\n"
        f"path = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "number = int(path.read_text() or 0) + 1 if path.exists() else 1\n"
        "path.write_text(str(number))\n"
        "version = 'client.authentication.k8s.io/v1'\n"
        "status = {'token': f'fake-token-{number}'}\n"
        "print(json.dumps({'apiVersion': version, 'kind': 'ExecCredential', 'status': status}))\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    api.tokens = {"fake-token-1"}
    client = Client(kubeconfig=api.kubeconfig(tmp_path, user))
    assert client.list("pods").items == ()
    api.tokens = {"fake-token-2"}
    assert client.list("pods").items == ()
    assert (tmp_path / "calls").read_text() == "2"


def test_a_token_is_renewed_before_it_ends_and_not_oftener(api, tmp_path) -> None:
    """The first token's end is past when it is asked for again, the second's is far off."""
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib\n"
        f"path = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "number = int(path.read_text() or 0) + 1 if path.exists() else 1\n"
        "path.write_text(str(number))\n"
        "end = '2024-08-08T00:00:00Z' if number == 1 else '2999-01-01T00:00:00Z'\n"
        "version = 'client.authentication.k8s.io/v1'\n"
        "status = {'token': f'fake-token-{number}', 'expirationTimestamp': end}\n"
        "print(json.dumps({'apiVersion': version, 'kind': 'ExecCredential', 'status': status}))\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    client = Client(kubeconfig=api.kubeconfig(tmp_path, user))
    api.tokens = {"fake-token-2"}
    for _ in range(3):
        assert client.list("pods").items == ()
    assert (tmp_path / "calls").read_text() == "2"
    assert api.seen("GET *") == 3, "no request went with the old one"


def test_a_context_of_another_kubeconfig_gives_way_to_the_current_one_where_that_is_allowed(api, tmp_path) -> None:
    file = api.kubeconfig(tmp_path, {"token": "fake-token-1"})
    assert Client(kubeconfig=file, context="elsewhere", or_current=True).context == "here"


def test_kubectl_is_told_what_it_would_not_take_by_itself(api, tmp_path, monkeypatch) -> None:
    file = api.kubeconfig(tmp_path, {"token": "fake-token-1"})
    document = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    document["contexts"].append({"name": "there", "context": document["contexts"][0]["context"]})
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    assert Client(kubeconfig=file, context="there", namespace="n").kubectl == (
        f"kubectl --kubeconfig {file} --context there -n n"
    )
    assert Client(kubeconfig=file).kubectl == f"kubectl --kubeconfig {file} -n market"


def test_clusters_are_told_apart_by_the_certificates_that_vouch_for_them(api, tmp_path) -> None:
    file = tmp_path / "kubeconfig"
    found = []
    for body in ("QUJD", "QUJE"):
        api.kubeconfig(tmp_path, {"token": "fake-token-1"})
        document = yaml.safe_load(file.read_text())
        pem = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
        ca = tmp_path / f"{body}.pem"
        ca.write_text(pem)
        document["clusters"][0]["cluster"] = {"server": "https://127.0.0.1:9", "certificate-authority": str(ca)}
        file.write_text(yaml.safe_dump(document))
        found.append(Client(kubeconfig=str(file)).authorities)
    assert [len(each) for each in found] == [1, 1]
    assert found[0] != found[1]


def test_a_login_that_is_not_taken_is_no_endless_loop(client, api) -> None:
    api.tokens = {"another"}
    with pytest.raises(NotAllowedError, match="does not know who we are"):
        client.list("pods")
    assert api.seen("GET *") == 2


def test_a_login_that_failed_is_not_told_as_a_missing_right(client, api) -> None:
    api.faults.append(
        Fault(f"GET {PODS}", 403, 'pods is forbidden: User "system:anonymous" cannot list resource "pods"')
    )
    with pytest.raises(NotAllowedError, match="does not know who we are"):
        client.list("pods")


def test_changes_come_as_they_happen_until_the_server_ends_the_watch(client, api) -> None:
    api.put("pods", pod("a"))
    with client.watch("pods", "0", seconds=1) as changes:
        api.put("pods", pod("b"))
        found = [(change["type"], change["object"]["metadata"]["name"]) for change in changes]
    assert found == [("ADDED", "a"), ("ADDED", "b")]


def test_a_version_that_is_too_old_is_told_apart(client, api) -> None:
    api.put("pods", pod("a"))
    api.forget()
    with pytest.raises(GoneError), client.watch("pods", "0", seconds=1) as changes:
        list(changes)
    api.faults.append(Fault(f"WATCH {PODS}", 410))
    with pytest.raises(GoneError):
        client.watch("pods", "9", seconds=1)


def test_a_watch_cut_in_a_chunk_is_a_lost_connection(client, api) -> None:
    with client.watch("pods", "0", seconds=30) as changes:
        api.hang_up()
        with pytest.raises(TransientError):
            list(changes)


def test_logs_have_times_and_none_is_there_before_a_container_starts(client, api) -> None:
    assert client.log("p") is None
    api.logs["p"] = "2024-08-08T00:00:01.000000000Z one\n2024-08-08T00:00:02.000000000Z two"
    assert client.log("p").splitlines()[0].endswith(" one")
    assert client.log("p", since="2024-08-08T00:00:02.000000000Z").splitlines()[0].endswith(" two")


def test_no_token_is_in_any_message(client, api) -> None:
    api.faults.append(Fault(f"GET {PODS}", 403))
    with pytest.raises(NotAllowedError) as caught:
        client.list("pods")
    assert "fake-token-1" not in json.dumps(str(caught.value))
