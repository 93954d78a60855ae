"""Background responses and streamed jobs with the official Python SDK, at two servers where there are two: each function is a promise. Prints
`ok NAME` for each; exits with 1 if any is broken."""

import json
import os
import time
import urllib.request

import openai
from checks import check, prompt, run_checks, stats, tag, wait_until

URL, ELSEWHERE = os.environ["TIDEMILL_URL"] + "/v1", os.environ["TIDEMILL_URL_ELSEWHERE"] + "/v1"
KEY = os.environ["TIDEMILL_KEY"]
options = {"max_retries": 0, "timeout": 30}
client = openai.OpenAI(base_url=URL, api_key=KEY, **options)
elsewhere = openai.OpenAI(base_url=ELSEWHERE, api_key=KEY, **options)
other = openai.OpenAI(base_url=URL, api_key=os.environ["TIDEMILL_KEY_OTHER"], **options)


def create(text, **more):
    return client.responses.create(**{"model": "chat", "input": text, "background": True, "max_output_tokens": 8, **more})


def wait(response, seconds=30):
    end = time.monotonic() + seconds
    while response.status in {"queued", "in_progress"}:
        assert time.monotonic() < end, response
        time.sleep(0.02)
        response = elsewhere.responses.retrieve(response.id)
    return response


def refused(status, code, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except openai.APIStatusError as error:
        assert (error.status_code, error.code) == (status, code), error
        return
    raise AssertionError(f"accepted, though it should be refused with {code}")


def sse(url, headers):
    """The events of a stream, as pairs of id and text."""
    asked = urllib.request.Request(url, headers={"authorization": f"Bearer {KEY}", **headers})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        blocks = answer.read().decode().split("\n\n")
    events = [block for block in blocks if block and not block.startswith(":")]
    return [(event.split("\n")[0].removeprefix("id: "), event.split("\n", 1)[1]) for event in events]


def submit(path, body):
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "prefer": "respond-async"}
    asked = urllib.request.Request(URL + path, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 202
        return json.load(answer)["id"]


@check
def a_background_response_is_polled_at_any_server_until_it_is_answered():
    text = prompt("background")
    response = create(text, metadata={"order": "7"})
    assert response.status in {"queued", "in_progress"} and response.id.startswith("resp_"), response
    assert (response.background, response.metadata, response.output) == (True, {"order": "7"}, []), response
    done = wait(response)
    assert (done.id, done.status, done.metadata) == (response.id, "completed", {"order": "7"}), done
    assert tag(text) in done.output_text and done.usage.output_tokens == 8, done
    assert elsewhere.responses.cancel(done.id).output_text == done.output_text, "one that has ended stays as it is"


@check
def a_background_response_is_its_owners_and_kept_only_if_it_is_stored():
    response = create(prompt("mine"))
    refused(404, "not_found", other.responses.retrieve, response.id)
    refused(404, "not_found", other.responses.cancel, response.id)
    refused(404, "not_found", other.responses.delete, response.id)
    refused(404, "not_found", client.responses.retrieve, "resp_nothing")
    refused(400, "invalid_value", create, "x", store=False)
    refused(400, "invalid_value", client.responses.retrieve, wait(response).id, stream=True)


@check
def a_background_response_can_be_cancelled_and_deleted():
    response = create(prompt("long"), max_output_tokens=4_000)
    wait_until("it runs", lambda: client.responses.retrieve(response.id).status == "in_progress", seconds=10)
    cancelled = elsewhere.responses.cancel(response.id)
    assert (cancelled.status, cancelled.output) == ("cancelled", []), cancelled
    wait_until("the backend's call stops", lambda: stats()["running"] == 0, seconds=2)
    assert client.responses.retrieve(response.id).status == "cancelled"
    elsewhere.responses.delete(response.id)
    refused(404, "not_found", client.responses.retrieve, response.id)


@check
def a_background_response_that_fails_says_why():
    failed = wait(create(prompt("[[fault:status=400]] background")))
    assert (failed.status, failed.error.code) == ("failed", "backend_rejected"), failed


@check
def the_same_idempotency_key_is_the_same_response():
    text, headers = prompt("once in the background"), {"idempotency-key": "background-1"}
    before = stats()["chat_calls"]
    ids = {create(text, extra_headers=headers).id for _ in range(5)}
    assert len(ids) == 1, ids
    wait(client.responses.retrieve(ids.pop()))
    assert stats()["chat_calls"] - before == 1
    refused(422, "idempotency_mismatch", create, "another", extra_headers=headers)


@check
def a_streamed_background_response_goes_on_after_its_caller_has_left_and_is_read_on_elsewhere():
    text = prompt("streamed background")
    seen = []
    stream = create(text, stream=True, max_output_tokens=40)
    for event in stream:
        seen.append(event)
        if event.type == "response.output_text.delta":
            break
    stream.close()
    assert [event.type for event in seen[:2]] == ["response.created", "response.queued"], seen
    name = seen[0].response.id
    rest = list(elsewhere.responses.retrieve(name, stream=True, starting_after=seen[-1].sequence_number))
    events = seen + rest
    numbers = [event.sequence_number for event in events]
    assert all(a < b for a, b in zip(numbers, numbers[1:])), numbers
    last = events[-1]
    assert (last.type, last.response.id, last.response.background) == ("response.completed", name, True), last
    words = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert words == last.response.output_text and words.count(tag(text)) == 1, words
    assert client.responses.retrieve(name).output_text == words
    again = list(client.responses.retrieve(name, stream=True))
    assert [event.to_json() for event in again] == [event.to_json() for event in events], "every reader reads the same"


@check
def a_streamed_background_response_that_fails_ends_in_its_failure():
    events = list(create(prompt("[[fault:status=400]] streamed"), stream=True))
    assert events[-1].type == "response.failed" and events[-1].response.error.code == "backend_rejected", events


@check
def a_streamed_background_response_that_is_cancelled_is_raised():
    stream = create(prompt("cancelled stream"), stream=True, max_output_tokens=4_000)
    try:
        for event in stream:
            if event.type == "response.output_text.delta":
                elsewhere.responses.cancel(name)
            elif event.type == "response.created":
                name = event.response.id
    except openai.APIError as error:
        assert error.code == "cancelled", error
        return
    raise AssertionError("taken for complete")


@check
def a_stream_under_an_idempotency_key_is_one_execution_that_every_caller_reads_from_its_beginning():
    text, headers = prompt("streamed once"), {"idempotency-key": "stream-1"}
    before = stats()["chat_calls"]
    ask = lambda server, **more: server.chat.completions.create(
        **{"model": "chat", "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 40, "extra_headers": headers, **more}
    )
    left = ask(client)
    next(iter(left))
    left.close()
    streams = [[chunk.to_json() for chunk in ask(server)] for server in (elsewhere, client)]
    assert streams[0] == streams[1] and len(streams[0]) > 40, streams
    words = "".join(choice["delta"].get("content") or "" for chunk in streams[0] for choice in json.loads(chunk)["choices"])
    assert words.count(tag(text)) == 1 and stats()["chat_calls"] - before == 1, words
    refused(422, "idempotency_mismatch", ask, client, max_tokens=41)


@check
def the_events_of_a_streamed_job_are_read_and_read_on():
    text = prompt("streamed job")
    job = submit("/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 20})
    events = sse(f"{URL}/jobs/{job}/events", {})
    chunks = [text.removeprefix("data: ") for _, text in events if text.startswith("data: ")]
    assert chunks[-1] == "[DONE]", chunks
    words = "".join(choice["delta"].get("content") or "" for chunk in chunks[:-1] for choice in json.loads(chunk)["choices"])
    assert words.count(tag(text)) == 1, words
    assert events[-1][1].startswith("event: job.succeeded\n"), events[-1]
    at = next(n for n, (_, text) in enumerate(events) if text.startswith("data: ")) + 5
    rest = sse(f"{ELSEWHERE}/jobs/{job}/events", {"last-event-id": events[at][0]})
    assert [text for _, text in rest if text.startswith("data: ")] == [text for _, text in events[at + 1 :] if text.startswith("data: ")]


run_checks()
