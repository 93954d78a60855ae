"""The official Python SDK against Tidemill: each function is a promise. Prints `ok NAME` for each; exits with 1 if any is broken."""

import os
import struct
import threading

import openai
from checks import check, prompt, run_checks, stats, tag, wait_until

URL, KEY = os.environ["TIDEMILL_URL"] + "/v1", os.environ["TIDEMILL_KEY"]
client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=30)
backend = openai.OpenAI(base_url=os.environ["SANDBOX_URL"] + "/v1", api_key="unused", max_retries=0, timeout=30)


def user(text):
    return [{"role": "user", "content": text}]


def floats(vector):
    """A vector as its 32-bit floats, however it travelled."""
    return struct.pack(f"{len(vector)}f", *vector)


def own_vectors(texts, **options):
    data = backend.embeddings.create(model="sandbox-embedding", input=texts, **options).data
    return [floats(item.embedding) for item in data]


def refused(status, code, call, *arguments, **options):
    """The call must fail with this status, this code, and a sentence."""
    try:
        call(*arguments, **options)
    except openai.APIStatusError as error:
        found = (error.status_code, error.code)
        assert found == (status, code), f"expected {(status, code)}, got {found}: {error.message}"
        assert " " in error.body["message"], error.body
        return error
    raise AssertionError(f"accepted, though it should be refused with {code}")


@check
def a_chat_answers_its_own_prompt():
    text = prompt("python chat")
    answer = client.chat.completions.create(model="chat", messages=user(text), max_tokens=8)
    assert tag(text) in answer.choices[0].message.content, answer
    assert answer.choices[0].finish_reason and answer.usage.completion_tokens > 0, answer


@check
def a_completion_answers_its_own_prompt():
    text = prompt("python completion")
    answer = client.completions.create(model="chat", prompt=text, max_tokens=8)
    assert tag(text) in answer.choices[0].text, answer


@check
def a_stream_runs_to_its_end():
    text = prompt("python stream")
    events = list(client.chat.completions.create(model="chat", messages=user(text), max_tokens=8, stream=True))
    words = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert words.count(tag(text)) == 1, words
    assert any(event.choices and event.choices[0].finish_reason for event in events)


@check
def a_response_answers_its_own_prompt():
    text = prompt("python response")
    answer = client.responses.create(model="chat", input=text, max_output_tokens=8)
    assert tag(text) in answer.output_text, answer
    assert answer.status == "completed" and answer.usage.output_tokens == 8, answer


@check
def a_streamed_response_runs_to_its_end():
    text = prompt("python streamed response")
    events = list(client.responses.create(model="chat", input=user(text), max_output_tokens=8, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    words = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert words == events[-1].response.output_text and words.count(tag(text)) == 1, words
    with client.responses.stream(model="chat", input=text) as stream:
        assert tag(text) in stream.get_final_response().output_text


@check
def a_streamed_response_that_breaks_off_is_raised():
    stream = client.responses.create(model="chat", input=prompt("[[fault:partial_stream]] python"), stream=True)
    try:
        events = list(stream)
    except openai.APIError as error:
        assert error.code == "stream_interrupted", error
        return
    raise AssertionError(f"taken for complete: {events}")


@check
def a_stream_broken_off_stops_the_backend_within_a_second():
    stream = client.chat.completions.create(model="chat", messages=user(prompt("python break")), max_tokens=2000, stream=True)
    next(iter(stream))
    assert stats()["running"] == 1
    stream.close()
    wait_until("the backend's call stops", lambda: stats()["running"] == 0, seconds=1)


@check
def embeddings_in_base64_are_the_backends_own():
    text = prompt("python base64")
    answer = client.embeddings.create(model="embed", input=text)  # the SDK asks for base64 by itself
    assert [floats(answer.data[0].embedding)] == own_vectors([text])


@check
def embeddings_in_float_are_the_backends_own():
    text = prompt("python float")
    answer = client.embeddings.create(model="embed", input=text, encoding_format="float")
    assert isinstance(answer.data[0].embedding, list)
    assert [floats(answer.data[0].embedding)] == own_vectors([text])


@check
def a_list_comes_back_in_its_order():
    texts = [prompt(f"python list {i}") for i in range(7)]
    answer = client.embeddings.create(model="embed", input=texts)
    assert [item.index for item in answer.data] == list(range(7))
    assert [floats(item.embedding) for item in answer.data] == own_vectors(texts)


@check
def token_arrays_are_inputs_too():
    one = client.embeddings.create(model="embed", input=[1, 2, 3])
    two = client.embeddings.create(model="embed", input=[[1, 2, 3], [4, 5]])
    assert len(one.data) == 1 and len(two.data) == 2
    assert floats(one.data[0].embedding) == floats(two.data[0].embedding)


@check
def dimensions_are_passed_on():
    text = prompt("python dimensions")
    answer = client.embeddings.create(model="embed", input=text, dimensions=16)
    assert len(answer.data[0].embedding) == 16
    assert [floats(answer.data[0].embedding)] == own_vectors([text], dimensions=16)


@check
def models_are_listed():
    names = {model.id for model in client.models.list()}
    assert {"chat", "narrow", "embed"} <= names, names
    assert client.models.retrieve("chat").id == "chat"
    refused(404, "model_not_found", client.models.retrieve, "nobody")


@check
def an_unknown_key_is_a_401():
    stranger = client.with_options(api_key="sk-of-nobody")
    refused(401, "invalid_api_key", stranger.chat.completions.create, model="chat", messages=user("x"))


@check
def an_unknown_model_is_a_404():
    refused(404, "model_not_found", client.chat.completions.create, model="nobody", messages=user("x"))
    refused(404, "model_not_found", client.embeddings.create, model="nobody", input="x")


@check
def each_malformed_body_is_a_400_with_its_code():
    chat, responses, embeddings = "/chat/completions", "/responses", "/embeddings"
    cases = [
        (chat, {}, "missing_required_parameter"),
        (chat, {"model": "chat"}, "missing_required_parameter"),
        (chat, {"model": 7, "messages": user("x")}, "invalid_value"),
        (chat, {"model": "chat", "messages": "x"}, "invalid_value"),
        (chat, {"model": "chat", "messages": []}, "missing_required_parameter"),
        (chat, {"model": "chat", "messages": user("x"), "stream": "yes"}, "invalid_value"),
        (chat, {"model": "chat", "messages": user("x"), "max_tokens": -1}, "invalid_value"),
        (chat, {"model": "embed", "messages": user("x")}, "operation_not_supported"),
        (responses, {"model": "chat"}, "missing_required_parameter"),
        (responses, {"model": "chat", "input": {}}, "invalid_value"),
        (responses, {"model": "chat", "input": "x", "max_output_tokens": 0}, "invalid_value"),
        (responses, {"model": "chat", "input": "x", "background": True, "store": False}, "invalid_value"),
        (responses, {"model": "embed", "input": "x"}, "operation_not_supported"),
        (embeddings, {"model": "embed"}, "missing_required_parameter"),
        (embeddings, {"model": "embed", "input": []}, "missing_required_parameter"),
        (embeddings, {"model": "embed", "input": ""}, "invalid_value"),
        (embeddings, {"model": "embed", "input": {"text": "x"}}, "invalid_value"),
        (embeddings, {"model": "embed", "input": ["x", 1]}, "invalid_value"),
        (embeddings, {"model": "embed", "input": "x", "encoding_format": "hex"}, "invalid_value"),
        (embeddings, {"model": "embed", "input": "x", "dimensions": 0}, "invalid_value"),
        (embeddings, {"model": "embed", "input": ["x"] * 2049}, "too_many_inputs"),
        (embeddings, {"model": "chat", "input": "x"}, "operation_not_supported"),
    ]
    for path, body, code in cases:
        refused(400, code, client.post, path, body=body, cast_to=object)


@check
def a_body_above_half_a_megabyte_is_answered():
    text = prompt("long " + "x" * 700_000)
    answer = client.chat.completions.create(model="chat", messages=user(text), max_tokens=4)
    assert tag(text) in answer.choices[0].message.content, answer


@check
def a_body_above_the_limit_is_a_413():
    refused(413, "body_too_large", client.chat.completions.create, model="chat", messages=user("x" * 1_200_000))


@check
def a_deadline_that_passes_in_the_queue_is_a_504_and_never_reaches_the_backend():
    first, second = prompt("[[delay:1500]] python first"), prompt("python too late")
    ask = client.chat.completions.create
    occupied = threading.Thread(target=ask, kwargs={"model": "narrow", "messages": user(first)})
    occupied.start()
    wait_until("the one slot is taken", lambda: stats()["running"] == 1, seconds=10)
    refused(504, "deadline_exceeded", ask, model="narrow", messages=user(second), extra_headers={"x-request-timeout-ms": "300"})
    occupied.join()
    # One more through the same slot: whatever had been queued before it would have reached the backend by now.
    third = prompt("python in time")
    ask(model="narrow", messages=user(third))
    seen = str(stats()["seen"])
    hash_of = lambda text: tag(text).removeprefix("sandbox:")
    assert hash_of(third) in seen, "the backend tells what it has seen"
    assert hash_of(second) not in seen, "the late prompt reached the backend"


@check
def every_answer_has_a_request_id():
    answer = client.chat.completions.with_raw_response.create(model="chat", messages=user(prompt("python id")))
    assert answer.headers.get("x-request-id"), answer.headers
    own = {"x-request-id": "my-own-id-1"}
    answer = client.chat.completions.with_raw_response.create(model="chat", messages=user(prompt("python id")), extra_headers=own)
    assert answer.headers.get("x-request-id") == "my-own-id-1", answer.headers


run_checks()
