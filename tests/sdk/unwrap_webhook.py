"""Unwraps a webhook with the official Python SDK, and sees that forgeries are refused."""

import json
import os

import openai

SECRET, BODY = os.environ["WEBHOOK_SECRET"], os.environ["WEBHOOK_BODY"]
HEADERS = json.loads(os.environ["WEBHOOK_HEADERS"])
client = openai.OpenAI(api_key="unused", webhook_secret=SECRET)


def is_refused(body, headers, **options):
    try:
        client.webhooks.unwrap(body, headers, **options)
    except openai.InvalidWebhookSignatureError:
        return True
    return False


event = client.webhooks.unwrap(BODY, HEADERS)
forgeries = [
    is_refused(BODY.replace("created_at", "created_in"), HEADERS),
    is_refused(BODY, HEADERS | {"webhook-id": "evt_other"}),
    is_refused(BODY, HEADERS, secret="whsec_b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVy"),
]
assert all(forgeries), forgeries
print(f"{event.type} {event.data.id}, and three forgeries refused")
