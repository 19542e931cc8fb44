"""The sandbox GCS asked by plain HTTP: what Google's documentation of the JSON API says, not what our client does."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import google_crc32c
import pytest

from runner.errors import SpecError
from runner.sandbox.gcs import Options, Server, serve

O = "/storage/v1/b/ours/o"  # noqa: E741 -- as in the paths
QUANTUM = 256 * 1024


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(server: Server, method: str, path: str, body: bytes | dict | None = None, **headers: str) -> Answer:
    parts = urlsplit(path)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, target, json.dumps(body) if isinstance(body, dict) else body, sent)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def put(server: Server, name: str, body: bytes = b"", query: str = "", **headers: str) -> Answer:
    return ask(server, "POST", f"/upload{O}?uploadType=media&name={quote(name, safe='')}{query}", body, **headers)


def crc32c(body: bytes) -> str:
    return base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()


def names(server: Server, query: str) -> list[str]:
    return [item["name"] for item in ask(server, "GET", f"{O}?{query}").json.get("items", [])]


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serve(Options(**{"buckets": ("ours",), **options})))


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    return start()


# Buckets.


def test_bucket_is_made_once(server: Server) -> None:
    assert ask(server, "POST", "/storage/v1/b?project=p", {"name": "new"}).status == 200
    assert ask(server, "POST", "/storage/v1/b?project=p", {"name": "new"}).status == 409
    assert ask(server, "GET", "/storage/v1/b/new").json["name"] == "new"
    assert ask(server, "GET", "/storage/v1/b/other").status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/storage/v1/b/no/o"),
        ("GET", "/storage/v1/b/no/o/a"),
        ("POST", "/upload/storage/v1/b/no/o?uploadType=media"),
    ],
)
def test_everything_in_an_unknown_bucket_is_404_with_a_reason(server: Server, method: str, path: str) -> None:
    answer = ask(server, method, path)
    assert (answer.status, answer.json["error"]["errors"][0]["reason"]) == (404, "notFound")


NEEDS = ("get", "list", "create", "delete")


def granted(server: Server) -> list[str]:
    query = "&".join(f"permissions=storage.objects.{need}" for need in NEEDS)
    return ask(server, "GET", f"/storage/v1/b/ours/iam/testPermissions?{query}").json.get("permissions", [])


def test_permissions_asked_for_are_granted_until_a_fault_withdraws_them_and_again_without_it(server: Server) -> None:
    everything = [f"storage.objects.{need}" for need in NEEDS]
    assert granted(server) == everything
    server.add_faults({"path": "/upload/*", "fault": "deny_after", "after": 1})
    upload = "/upload/storage/v1/b/ours/o?uploadType=media&name="
    assert (granted(server), ask(server, "POST", f"{upload}a").status) == (everything, 200)
    assert (granted(server), ask(server, "POST", f"{upload}b").status) == ([*everything[:2], everything[3]], 403)
    server.clear_faults()
    assert (granted(server), ask(server, "POST", f"{upload}b").status) == (everything, 200)


def test_permission_on_some_objects_only_leaves_those_of_the_bucket(server: Server) -> None:
    server.add_faults({"path": "*/o/d/*", "fault": "deny_after"})
    assert len(granted(server)) == len(NEEDS)
    assert (ask(server, "GET", f"{O}/d%2Fa").status, ask(server, "GET", f"{O}/a").status) == (403, 404)


def test_who_may_do_nothing_may_not_even_ask(server: Server) -> None:
    server.add_faults({"path": "*", "fault": "deny_after"})
    assert ask(server, "GET", "/storage/v1/b/ours/iam/testPermissions?permissions=storage.objects.get").status == 403


def test_what_is_not_served_says_so(server: Server) -> None:
    for method, path in (("GET", "/"), ("GET", "/ours/a"), ("POST", f"{O}/a/compose"), ("GET", f"{O}?versions=true")):
        assert ask(server, method, path).status in {400, 404}
        assert "sandbox" in ask(server, method, path).json["error"]["message"]


# Objects and preconditions.


def test_resource_tells_size_checksums_and_times(server: Server) -> None:
    made = put(server, "a/b c", b"123456789", content_type="text/plain").json
    assert made == ask(server, "GET", f"{O}/a%2Fb%20c").json
    assert (made["size"], made["crc32c"], made["contentType"]) == ("9", "4waSgw==", "text/plain")
    assert base64.b64decode(made["md5Hash"]) == hashlib.md5(b"123456789").digest()
    assert (made["metageneration"], made["timeCreated"]) == ("1", made["updated"])


def test_generations_rise_also_over_deletes(server: Server) -> None:
    seen = []
    for _ in range(20):
        seen.append(int(put(server, "a", b"same").json["generation"]))
        assert ask(server, "DELETE", f"{O}/a").status == 204
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("condition", "on_absent", "on_present"),
    [
        ("ifGenerationMatch=0", 200, 412),
        ("ifGenerationMatch={generation}", 412, 200),
        ("ifGenerationMatch=1", 412, 412),
        ("ifGenerationNotMatch=0", 412, 200),
        ("ifGenerationNotMatch={generation}", 200, 412),
        ("ifMetagenerationMatch=1", 412, 200),
        ("ifMetagenerationMatch=2", 412, 412),
        ("ifGenerationMatch=x", 400, 400),
    ],
)
@pytest.mark.parametrize("kind", ["media", "resumable"])
def test_preconditions_hold_for_writes(
    server: Server, condition: str, on_absent: int, on_present: int, kind: str
) -> None:
    generation = put(server, "there", b"1").json["generation"]
    for name, expected in (("there", on_present), ("fresh", on_absent)):
        path = f"/upload{O}?uploadType={kind}&name={name}&{condition.format(generation=generation)}"
        assert ask(server, "POST", path, b"").status == expected
    assert ask(server, "GET", f"{O}/there?alt=media").body == (b"" if (kind, on_present) == ("media", 200) else b"1")


def test_reads_and_deletes_have_preconditions_too(server: Server) -> None:
    generation = put(server, "a", b"1").json["generation"]
    for path in (f"{O}/a?", f"{O}/a?alt=media&", f"/download{O}/a?alt=media&"):
        assert ask(server, "GET", f"{path}ifGenerationMatch={generation}").status == 200
        assert ask(server, "GET", f"{path}ifGenerationMatch=1").status == 412
        assert ask(server, "GET", f"{path}ifGenerationNotMatch={generation}").status == 304
        assert ask(server, "GET", f"{path}generation=1").status == 404
    assert ask(server, "DELETE", f"{O}/a?ifGenerationMatch=1").status == 412
    assert ask(server, "DELETE", f"{O}/a?ifGenerationMatch={generation}").status == 204
    assert ask(server, "DELETE", f"{O}/a?ifGenerationMatch={generation}").status == 404


def test_patch_changes_metadata_and_metageneration_only(server: Server) -> None:
    first = put(server, "a", b"1").json
    changed = ask(server, "PATCH", f"{O}/a", {"metadata": {"x": "1", "y": "2"}}).json
    assert (changed["metadata"], changed["metageneration"]) == ({"x": "1", "y": "2"}, "2")
    assert (changed["generation"], changed["timeCreated"]) == (first["generation"], first["timeCreated"])
    assert changed["updated"] > first["updated"]
    again = ask(server, "PATCH", f"{O}/a?ifMetagenerationMatch=2", {"metadata": {"x": None}}).json
    assert again["metadata"] == {"y": "2"}
    assert ask(server, "PATCH", f"{O}/a?ifMetagenerationMatch=2", {"metadata": {}}).status == 412


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges(server: Server, asked: str, status: int, body: bytes | None, content_range: str | None) -> None:
    made = put(server, "a", b"0123456789").json
    answer = ask(server, "GET", f"/download{O}/a?alt=media", Range=asked)
    assert (answer.status, answer.headers.get("content-range")) == (status, content_range)
    if body is not None:
        assert answer.body == body
        assert answer.headers["x-goog-generation"] == made["generation"]
        assert f"crc32c={made['crc32c']}" in answer.headers["x-goog-hash"]


# Lists.


def test_list_is_paged_and_ascending_by_bytes(start: Callable[..., Server]) -> None:
    server = start(page_size=3)
    expected = ["a", "a-b", "a.b", "a/b", "a/c", "b", "z", "\u00e9", "\U0001f4c8"]
    for name in reversed(expected):
        put(server, name)
    seen, query = [], ""
    while True:
        page = ask(server, "GET", f"{O}?maxResults=1000{query}").json
        seen.append([item["name"] for item in page["items"]])
        if "nextPageToken" not in page:
            break
        query = f"&pageToken={quote(page['nextPageToken'])}"
    assert seen == [expected[:3], expected[3:6], expected[6:]]
    assert names(server, "prefix=a/") == ["a/b", "a/c"]
    assert names(server, "startOffset=a/b&endOffset=b") == ["a/b", "a/c"]
    assert names(server, "maxResults=2&prefix=a") == ["a", "a-b"]


@pytest.mark.parametrize("page_size", [1, 2, 1000])
def test_delimiter_folds_what_lies_below(start: Callable[..., Server], page_size: int) -> None:
    server = start(page_size=page_size)
    for name in ("a", "d/1", "d/2", "d/e/3", "d0", "f/1"):
        put(server, name)
    items, prefixes, token = [], [], ""
    while True:
        page = ask(server, "GET", f"{O}?delimiter=/{token}").json
        items += [item["name"] for item in page.get("items", [])]
        prefixes += page.get("prefixes", [])
        if "nextPageToken" not in page:
            break
        token = f"&pageToken={quote(page['nextPageToken'])}"
    assert (items, prefixes) == (["a", "d0"], ["d/", "f/"])


def test_delimiter_folds_below_a_prefix(server: Server) -> None:
    for name in ("d/1", "d/e/3", "d/e/4", "e/f/g"):
        put(server, name)
    assert ask(server, "GET", f"{O}?delimiter=/&prefix=d/&fields=prefixes").json == {"prefixes": ["d/e/"]}


def test_fields_leave_only_what_is_asked_for(server: Server) -> None:
    put(server, "a", b"1")
    page = ask(server, "GET", f"{O}?fields=items(name,size),nextPageToken").json
    assert page == {"items": [{"name": "a", "size": "1"}]}
    assert ask(server, "GET", f"{O}?fields=items/name").json == {"items": [{"name": "a"}]}
    assert ask(server, "GET", f"{O}/a?fields=size").json == {"size": "1"}


# Checksums and limits.


def multipart(resource: dict, body: bytes) -> tuple[bytes, str]:
    head = json.dumps(resource).encode()
    parts = (
        b"--xyz\r\ncontent-type: application/json\r\n\r\n",
        head,
        b"\r\n--xyz\r\ncontent-type: text/x\r\n\r\n",
        body,
    )
    return b"".join((*parts, b"\r\n--xyz--")), 'multipart/related; boundary="xyz"'


@pytest.mark.parametrize("body", [b"", b"123456789", b"\r\n--xy\r\n\r\n--", bytes(range(256))])
def test_multipart_carries_content_and_metadata_at_once(server: Server, body: bytes) -> None:
    sent, kind = multipart({"name": "a", "metadata": {"n": "1"}, "crc32c": crc32c(body)}, body)
    made = ask(server, "POST", f"/upload{O}?uploadType=multipart", sent, content_type=kind).json
    assert (made["metadata"], made["contentType"]) == ({"n": "1"}, "text/x")
    assert ask(server, "GET", f"{O}/a?alt=media").body == body


def test_wrong_checksums_are_refused_with_nothing_written(server: Server) -> None:
    md5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    for claim in ({"crc32c": crc32c(b"other")}, {"md5Hash": md5}):
        sent, kind = multipart({"name": "a", **claim}, b"body")
        answer = ask(server, "POST", f"/upload{O}?uploadType=multipart", sent, content_type=kind)
        assert (answer.status, "doesn't match" in answer.json["error"]["message"]) == (400, True)
    assert put(server, "a", b"body", x_goog_hash=f"crc32c={crc32c(b'other')}").status == 400
    assert put(server, "a", b"body", x_goog_hash=f"crc32c={crc32c(b'body')},md5={md5}").status == 400
    assert ask(server, "GET", f"{O}/a").status == 404


def test_metadata_and_names_have_limits(server: Server) -> None:
    for size, status in ((8191, 200), (8192, 400)):
        sent, kind = multipart({"name": f"a{size}", "metadata": {"k": "v" * size}}, b"")
        assert ask(server, "POST", f"/upload{O}?uploadType=multipart", sent, content_type=kind).status == status
    for name, status in (
        ("x" * 1024, 200),
        ("x" * 1025, 400),
        ("\u00e9" * 513, 400),
        ("a\nb", 400),
        ("..", 400),
        ("", 400),
    ):
        assert put(server, name).status == status


# Resumable uploads.


def begin(server: Server, query: str = "", resource: dict | None = None) -> str:
    answer = ask(server, "POST", f"/upload{O}?uploadType=resumable&name=a{query}", resource or {})
    assert answer.status == 200
    return answer.headers["location"].removeprefix(server.url)


def chunk(server: Server, place: str, body: bytes, content_range: str, **headers: str) -> Answer:
    return ask(server, "PUT", place, body, content_range=content_range, **headers)


BODY = bytes(range(256)) * (QUANTUM // 256) * 3 + b"end"


def test_chunks_become_an_object_with_the_last_of_them(server: Server) -> None:
    place = begin(server, resource={"metadata": {"n": "1"}})
    assert chunk(server, place, b"", "bytes */*").headers.get("range") is None
    first = chunk(server, place, BODY[:QUANTUM], f"bytes 0-{QUANTUM - 1}/*")
    assert (first.status, first.headers["range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    assert ask(server, "GET", f"{O}/a").status == 404
    rest = f"bytes {QUANTUM}-{len(BODY) - 1}/{len(BODY)}"
    last = chunk(server, place, BODY[QUANTUM:], rest, x_goog_hash=f"crc32c={crc32c(BODY)}")
    assert (last.status, last.json["metadata"]) == (200, {"n": "1"})
    assert ask(server, "GET", f"{O}/a?alt=media").body == BODY


def test_bytes_sent_again_are_ignored_and_gaps_refused(server: Server) -> None:
    place = begin(server)
    chunk(server, place, BODY[: 2 * QUANTUM], f"bytes 0-{2 * QUANTUM - 1}/*")
    assert (
        chunk(server, place, b"x" * QUANTUM, f"bytes 0-{QUANTUM - 1}/*").headers["range"]
        == f"bytes=0-{2 * QUANTUM - 1}"
    )
    assert chunk(server, place, b"x" * QUANTUM, f"bytes {3 * QUANTUM}-{4 * QUANTUM - 1}/*").status == 400
    assert chunk(server, place, b"x" * 1000, f"bytes {2 * QUANTUM}-{2 * QUANTUM + 999}/*").status == 400
    assert chunk(server, place, BODY, f"bytes 0-{len(BODY) - 1}/{len(BODY)}").status == 200
    assert ask(server, "GET", f"{O}/a?alt=media").body == BODY


def test_finished_session_repeats_its_answer_and_a_cancelled_one_is_gone(server: Server) -> None:
    place = begin(server)
    made = chunk(server, place, b"body", "bytes 0-3/4").json
    assert chunk(server, place, b"body", "bytes 0-3/4").json == made
    assert chunk(server, place, b"", "bytes */4").json == made
    other = begin(server)
    assert ask(server, "DELETE", other).status == 499
    assert chunk(server, other, b"", "bytes */*").status == 404


def test_precondition_is_judged_again_at_the_end(server: Server) -> None:
    place = begin(server, "&ifGenerationMatch=0")
    put(server, "a", b"other")
    assert chunk(server, place, b"body", "bytes 0-3/4").status == 412
    assert ask(server, "GET", f"{O}/a?alt=media").body == b"other"


def test_wrong_checksum_at_the_end_is_refused(server: Server) -> None:
    place = begin(server)
    assert chunk(server, place, b"body", "bytes 0-3/4", x_goog_hash=f"crc32c={crc32c(b'other')}").status == 400
    assert ask(server, "GET", f"{O}/a").status == 404


# Faults, statistics, directories.


def test_commit_then_503_commits_and_status_does_not(server: Server) -> None:
    server.add_faults({"path": "*", "fault": "commit_then_503", "count": 1})
    assert ask(server, "GET", f"{O}/a").status == 404
    assert put(server, "a", b"1").status == 503
    assert ask(server, "GET", f"{O}/a?alt=media").body == b"1"
    server.add_faults({"path": "*", "fault": "status", "code": 429, "count": 1})
    assert put(server, "b", b"1").status == 429
    assert ask(server, "GET", f"{O}/b").status == 404


def test_reset_in_a_chunk_keeps_whole_quanta_of_it(server: Server) -> None:
    place = begin(server)
    server.add_faults({"path": "/upload/*", "fault": "reset", "at": 0.5, "count": 1})
    with pytest.raises(OSError, match=r"reset|closed"):
        chunk(server, place, BODY, f"bytes 0-{len(BODY) - 1}/{len(BODY)}")
    assert chunk(server, place, b"", f"bytes */{len(BODY)}").headers["range"] == f"bytes=0-{QUANTUM - 1}"


def test_faults_of_day_files_are_unknown_here_and_those_of_buckets_there(server: Server) -> None:
    with pytest.raises(SpecError, match="commit_then_503, deny_after"):
        server.add_faults({"path": "*", "fault": "corrupt"})


def test_statistics_name_the_object_of_every_upload(server: Server) -> None:
    put(server, "d/media", b"1")
    sent, kind = multipart({"name": "d/multi"}, b"1")
    ask(server, "POST", f"/upload{O}?uploadType=multipart", sent, content_type=kind)
    chunk(server, begin(server), b"1", "bytes 0-0/1")
    paths = {path: seen["requests"] for path, seen in server.stats()["paths"].items()}
    assert paths == {f"/upload{O}/d/media": 1, f"/upload{O}/d/multi": 1, f"/upload{O}/a": 2}


def test_directory_outlives_the_server(start: Callable[..., Server], tmp_path: Any) -> None:
    one = start(data=tmp_path)
    for body in (b"1", b"22"):
        put(one, "d/a", body)
    put(one, "gone", b"")
    ask(one, "DELETE", f"{O}/gone")
    ask(one, "PATCH", f"{O}/d%2Fa", {"metadata": {"n": "1"}})
    facts = ask(one, "GET", f"{O}/d%2Fa").json
    one.close()
    two = start(data=tmp_path)
    assert names(two, "") == ["d/a"]
    assert ask(two, "GET", f"{O}/d%2Fa").json == facts
    assert ask(two, "GET", f"{O}/d%2Fa?alt=media").body == b"22"
    assert int(put(two, "new").json["generation"]) > int(facts["generation"])
