"""The largest batch, with lines that are no JSON where a reader of pieces is most likely to miscount: the first, one in the middle, the last.
Prints how long it took."""

import json
import os
import time

import openai

LINES = 50_000
BAD = [1, 25_000, LINES]
client = openai.OpenAI(base_url=os.environ["TIDEMILL_URL"] + "/v1", api_key=os.environ["TIDEMILL_KEY"], max_retries=0, timeout=60)


def line(number):
    if number in BAD:
        return '{"custom_id": "cut", "body": {"model": '
    body = {"model": "embed", "input": f"line {number}", "dimensions": 8, "encoding_format": "base64"}
    return json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/embeddings", "body": body})


def rows(file_id):
    return [json.loads(row) for row in client.files.content(file_id).text.splitlines()]


began = time.monotonic()
file = client.files.create(file=("rows.jsonl", "\n".join(map(line, range(1, LINES + 1))).encode()), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
while batch.status not in {"completed", "failed", "expired", "cancelled"}:
    time.sleep(0.1)
    batch = client.batches.retrieve(batch.id)
assert batch.status == "completed", batch
assert [(row["error"]["line"], row["error"]["code"], row["custom_id"]) for row in rows(batch.error_file_id)] == [
    (number, "invalid_json", None) for number in BAD
]
assert [row["custom_id"] for row in rows(batch.output_file_id)] == [str(number) for number in range(1, LINES + 1) if number not in BAD]
print(f"ok {LINES} lines in {time.monotonic() - began:.1f} s")
