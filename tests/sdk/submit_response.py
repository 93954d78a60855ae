"""Asks for a background response with the official Python SDK and prints its id."""

import os

import openai
from checks import prompt

client = openai.OpenAI(base_url=os.environ["TIDEMILL_URL"] + "/v1", api_key=os.environ["TIDEMILL_KEY"], max_retries=0, timeout=30)
print(client.responses.create(model="chat", input=prompt("to be told of"), background=True).id)
