"""Submits a batch with the official Python SDK and prints its id."""

import json
import os

import openai
from checks import prompt

client = openai.OpenAI(base_url=os.environ["TIDEMILL_URL"] + "/v1", api_key=os.environ["TIDEMILL_KEY"], max_retries=0, timeout=30)
body = {"model": "chat", "messages": [{"role": "user", "content": prompt("to be told of")}]}
line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
file = client.files.create(file=("batch.jsonl", json.dumps(line).encode()), purpose="batch")
print(client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h").id)
