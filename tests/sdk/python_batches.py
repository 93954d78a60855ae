"""Files, batches and jobs with the official Python SDK: each function is a promise. Prints `ok NAME` for each; exits with 1 if any is broken."""

import concurrent.futures
import io
import json
import os
import time
import urllib.error
import urllib.request

import openai
from checks import check, prompt, run_checks, stats, tag

URL, KEY = os.environ["TIDEMILL_URL"] + "/v1", os.environ["TIDEMILL_KEY"]
client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=30)
other = openai.OpenAI(base_url=URL, api_key=os.environ["TIDEMILL_KEY_OTHER"], max_retries=0, timeout=30)
backend = openai.OpenAI(base_url=os.environ["SANDBOX_URL"] + "/v1", api_key="unused", max_retries=0, timeout=30)
ENDED = {"completed", "failed", "expired", "cancelled"}


def line(custom_id, body, url="/v1/embeddings"):
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def embedding(n):
    return line(f"row-{n}", {"model": "embed", "input": f"text number {n}", "dimensions": 8})


def chat(n):
    body = {"model": "chat", "messages": [{"role": "user", "content": prompt(f"row {n}")}], "max_tokens": 4}
    return line(f"chat-{n}", body, "/v1/chat/completions")


def submit(lines, endpoint="/v1/embeddings", **options):
    file = client.files.create(file=("rows.jsonl", "\n".join(lines).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **options)


def wait(batch, seconds=60):
    end = time.monotonic() + seconds
    while batch.status not in ENDED:
        assert time.monotonic() < end, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def rows(file_id):
    return [json.loads(row) for row in client.files.content(file_id).text.splitlines()] if file_id else []


def request(method, path, body=None, **headers):
    data = json.dumps(body).encode() if body is not None else None
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
    asked = urllib.request.Request(URL + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def refused(status, code, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except openai.APIStatusError as error:
        assert (error.status_code, error.code) == (status, code), error
        return
    raise AssertionError(f"accepted, though it should be refused with {code}")


@check
def a_file_comes_back_as_it_was_sent_until_it_is_deleted():
    content = os.urandom(3_000_000)
    file = client.files.create(file=("ä b.bin", io.BytesIO(content)), purpose="user_data")
    assert (file.bytes, file.filename, file.purpose) == (len(content), "ä b.bin", "user_data"), file
    assert client.files.content(file.id).read() == content
    assert file.id in [one.id for one in client.files.list()]
    assert file.id not in [one.id for one in other.files.list()]
    refused(404, "not_found", other.files.retrieve, file.id)
    refused(404, "not_found", other.files.content, file.id)
    assert client.files.delete(file.id).deleted
    refused(404, "not_found", client.files.retrieve, file.id)


@check
def an_embedding_batch_answers_every_line_once():
    before = stats()["embed_calls"]
    batch = submit([embedding(n) for n in range(1_000)], metadata={"night": "first"})
    assert batch.status in {"validating", "in_progress"} and batch.metadata == {"night": "first"}, batch
    batch = wait(batch)
    assert batch.status == "completed" and batch.error_file_id is None, batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (1_000, 1_000, 0), batch
    assert batch.created_at <= batch.in_progress_at <= batch.completed_at, batch
    output = rows(batch.output_file_id)
    assert [row["custom_id"] for row in output] == [f"row-{n}" for n in range(1_000)]
    assert all(row["response"]["status_code"] == 200 and row["error"] is None for row in output)
    own = backend.embeddings.create(model="sandbox-embedding", input="text number 777", dimensions=8, encoding_format="float")
    assert output[777]["response"]["body"]["data"][0]["embedding"] == own.data[0].embedding
    assert stats()["embed_calls"] - before < 200, "lines share backend calls"
    assert any(one.id == batch.id for one in client.batches.list())
    refused(404, "not_found", other.batches.retrieve, batch.id)


@check
def a_chat_batch_answers_each_prompt_with_its_own_answer():
    batch = wait(submit([chat(n) for n in range(100)], "/v1/chat/completions"))
    output = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows(batch.output_file_id)}
    assert len(output) == 100 and all(tag(prompt(f"row {n}")) in output[f"chat-{n}"] for n in range(100))
    assert batch.usage.total_tokens > 0 if batch.usage else True


@check
def bad_lines_are_reported_with_their_numbers_and_the_others_run():
    lines = [embedding(n) for n in range(600)]
    lines[0], lines[299] = "this is no JSON", line("wrong-url", {"model": "embed", "input": "x"}, "/v1/chat/completions")
    lines[300], lines[301] = line("no-model", {"input": "x"}), line("foreign", {"model": "nobody", "input": "x"})
    lines[302], lines[599] = '{"custom_id": "no-body"}', '{"custom_id": "cut'
    lines.insert(10, "   ")
    batch = wait(submit(lines))
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 600, 594, 6), batch
    errors = rows(batch.error_file_id)
    found = [(row["error"]["line"], row["custom_id"], row["error"]["code"]) for row in errors]
    assert found == [
        (1, None, "invalid_json"),
        (301, "wrong-url", "invalid_value"),
        (302, "no-model", "missing_required_parameter"),
        (303, "foreign", "model_not_found"),
        (304, "no-body", "missing_required_parameter"),
        (601, None, "invalid_json"),
    ], found
    assert len(rows(batch.output_file_id)) == 594


@check
def a_line_that_the_backend_refuses_has_its_answer_in_the_error_file():
    lines = [embedding(n) for n in range(64)]
    lines[7] = line("poison", {"model": "embed", "input": "please [[fault:status=400]]"})
    batch = wait(submit(lines))
    errors = rows(batch.error_file_id)
    assert [row["custom_id"] for row in errors] == ["poison"], errors
    assert errors[0]["response"]["status_code"] == 400 and errors[0]["response"]["body"]["error"]["code"] == "backend_rejected", errors
    assert len(rows(batch.output_file_id)) == 63


@check
def a_batch_can_be_cancelled_and_still_accounts_for_every_line():
    lines = [line(f"slow-{n}", {"model": "narrow", "messages": [{"role": "user", "content": "x"}], "max_tokens": 50}, "/v1/chat/completions") for n in range(400)]
    batch = submit(lines, "/v1/chat/completions")
    while client.batches.retrieve(batch.id).request_counts.total == 0:
        time.sleep(0.02)
    refused(409, "conflict", client.files.delete, batch.input_file_id)
    assert client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}
    batch = wait(batch)
    assert client.files.delete(batch.input_file_id).deleted, "no batch reads it any more"
    output, errors = rows(batch.output_file_id), rows(batch.error_file_id)
    assert batch.status == "cancelled" and len(output) + len(errors) == 400, batch
    assert {row["error"]["code"] for row in errors if row["error"]} == {"batch_cancelled"}
    assert client.batches.cancel(batch.id).status == "cancelled", "cancelling again is no error"


@check
def what_is_no_batch_is_refused():
    file = client.files.create(file=("rows.jsonl", embedding(1).encode()), purpose="batch")
    create = client.batches.create
    refused(404, "not_found", create, input_file_id="file-none", endpoint="/v1/embeddings", completion_window="24h")
    refused(400, "invalid_value", create, input_file_id=file.id, endpoint="/v1/nothing", completion_window="24h")
    refused(400, "invalid_value", create, input_file_id=file.id, endpoint="/v1/embeddings", completion_window="soon")
    empty = client.files.create(file=("rows.jsonl", b"\n\n"), purpose="batch")
    refused(400, "invalid_value", create, input_file_id=empty.id, endpoint="/v1/embeddings", completion_window="24h")
    refused(400, "invalid_value", client.files.create, file=("x", b"x"), purpose="nonsense")


@check
def a_job_is_submitted_polled_and_answered():
    text = prompt("a job")
    body = {"model": "chat", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    status, headers, answer = request("POST", "/chat/completions", body, prefer="respond-async")
    job = json.loads(answer)
    assert status == 202 and headers["location"] == f"/v1/jobs/{job['id']}", (status, headers)
    while job["status"] not in {"succeeded", "failed"}:
        time.sleep(0.02)
        job = json.loads(request("GET", f"/jobs/{job['id']}")[2])
    assert job["status"] == "succeeded" and tag(text) in job["result"]["choices"][0]["message"]["content"], job
    assert job["attempts"] == 1 and job["usage"]["output_tokens"] > 0, job
    status, _, events = request("GET", f"/jobs/{job['id']}/events")
    assert status == 200 and b"event: job.succeeded" in events, events
    status, _, _ = request("GET", f"/jobs/{job['id']}", authorization=f"Bearer {os.environ['TIDEMILL_KEY_OTHER']}")
    assert status == 404


@check
def a_job_can_be_cancelled():
    body = {"model": "narrow", "messages": [{"role": "user", "content": "long"}], "max_tokens": 2_000}
    job = json.loads(request("POST", "/chat/completions", body, prefer="respond-async")[2])
    while json.loads(request("GET", f"/jobs/{job['id']}")[2])["status"] != "running":
        time.sleep(0.02)
    assert json.loads(request("DELETE", f"/jobs/{job['id']}")[2])["status"] == "cancelled"
    end = time.monotonic() + 2
    while stats()["running"]:
        assert time.monotonic() < end, "the backend still runs it"
        time.sleep(0.02)
    assert json.loads(request("GET", f"/jobs/{job['id']}")[2])["status"] == "cancelled"


@check
def twenty_posts_under_one_idempotency_key_are_one_execution():
    text = prompt("only once")
    body = {"model": "chat", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    before = stats()["chat_calls"]
    post = lambda _: request("POST", "/chat/completions", body, **{"idempotency-key": "night-1"})
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, range(20)))
    assert {status for status, _, _ in answers} == {200}, answers
    assert len({answer for _, _, answer in answers}) == 1 and tag(text).encode() in answers[0][2]
    assert stats()["chat_calls"] - before == 1, "one execution"
    status, _, answer = request("POST", "/chat/completions", {**body, "max_tokens": 5}, **{"idempotency-key": "night-1"})
    assert (status, json.loads(answer)["error"]["code"]) == (422, "idempotency_mismatch"), answer


@check
def the_same_idempotency_key_is_one_file_and_one_batch():
    named = {"extra_headers": {"idempotency-key": "twice-1"}}
    content = embedding(1).encode()
    upload = lambda content: client.files.create(file=("rows.jsonl", content), purpose="batch", **named)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        files = list(pool.map(upload, [content] * 8))
    assert len({file.id for file in files}) == 1, files
    file = upload(content)
    assert client.files.content(file.id).read() == content and [one.id for one in client.files.list()].count(file.id) == 1
    refused(422, "idempotency_mismatch", upload, content + b"\n")
    asked = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: client.batches.create(**asked, **named), range(8)))
    assert len({batch.id for batch in batches}) == 1, batches
    refused(422, "idempotency_mismatch", client.batches.create, **{**asked, "completion_window": "12h"}, **named)
    assert wait(batches[0]).request_counts.completed == 1
    client.files.delete(file.id)
    assert client.batches.create(**asked, **named).id == batches[0].id, "also when its file is gone"


run_checks()
