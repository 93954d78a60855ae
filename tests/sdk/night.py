"""A night of a data team: an embedding batch and a chat batch, while others kill what runs them. Submits both by the official SDK, prints
`submitted`, waits, and checks every line: once, in one of the two files, with its own answer."""

import json
import os
import sys
import time

import openai
from checks import prompt, stats, tag

EMBEDDINGS, CHATS = int(os.environ["EMBEDDINGS"]), int(os.environ["CHATS"])
URLS = [url + "/v1" for url in os.environ["TIDEMILL_URLS"].split(",")]
clients = [openai.OpenAI(base_url=url, api_key=os.environ["TIDEMILL_KEY"], max_retries=0, timeout=30) for url in URLS]
backend = openai.OpenAI(base_url=os.environ["SANDBOX_URL"] + "/v1", api_key="unused", max_retries=0, timeout=60)


def ask(call):
    """Any ingress will do, and any of them may be dead at this moment."""
    for attempt in range(600):
        try:
            return call(clients[attempt % len(clients)])
        except (openai.APIConnectionError, openai.APITimeoutError, openai.InternalServerError):
            time.sleep(0.1)
    raise AssertionError("no ingress answers")


def text(n):
    return f"line {n} of the night"


def embedding(n):
    body = {"model": "embed", "input": text(n), "dimensions": 8, "encoding_format": "base64"}
    return {"custom_id": f"e{n}", "method": "POST", "url": "/v1/embeddings", "body": body}


def chat(n):
    body = {"model": "chat", "messages": [{"role": "user", "content": prompt(f"night {n}")}], "max_tokens": 50}
    return {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def submit(lines, endpoint):
    content = "\n".join(json.dumps(line) for line in lines).encode()
    file = ask(lambda client: client.files.create(file=("night.jsonl", content), purpose="batch"))
    return ask(lambda client: client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")).id


def rows(file_id):
    return [json.loads(row) for row in ask(lambda client: client.files.content(file_id).text).splitlines()] if file_id else []


def wait(batch_id):
    while True:
        batch = ask(lambda client: client.batches.retrieve(batch_id))
        if batch.status in {"completed", "failed", "expired", "cancelled"}:
            return batch
        time.sleep(0.2)


began = time.monotonic()
ids = [submit(map(embedding, range(EMBEDDINGS)), "/v1/embeddings"), submit(map(chat, range(CHATS)), "/v1/chat/completions")]
print("submitted", flush=True)
embedded, chatted = [wait(id) for id in ids]
print("through", flush=True)
seconds = time.monotonic() - began
counts = stats()

assert embedded.status == chatted.status == "completed", (embedded, chatted)
output, errors = rows(embedded.output_file_id), rows(embedded.error_file_id)
assert not errors, errors[:3]
assert [row["custom_id"] for row in output] == [f"e{n}" for n in range(EMBEDDINGS)], "every line once, in order"
for start in range(0, EMBEDDINGS, 512):
    ns = range(start, min(start + 512, EMBEDDINGS))
    own = backend.embeddings.create(model="sandbox-embedding", input=[text(n) for n in ns], dimensions=8, encoding_format="base64")
    for n, item in zip(ns, own.data):
        assert output[n]["response"]["body"]["data"][0]["embedding"] == item.embedding, f"line {n} has another's vector"
chats, errors = rows(chatted.output_file_id), rows(chatted.error_file_id)
assert not errors, errors[:3]
assert [row["custom_id"] for row in chats] == [f"c{n}" for n in range(CHATS)]
for n, row in enumerate(chats):
    assert tag(prompt(f"night {n}")) in row["response"]["body"]["choices"][0]["message"]["content"], f"line {n} has another's answer"
print(f"ok lines={EMBEDDINGS + CHATS} seconds={seconds:.1f} embedded_again={counts['embed_items'] - EMBEDDINGS} chatted_again={counts['chat_calls'] - CHATS}")
sys.exit(0)
