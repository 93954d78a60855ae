"""Embeds a file of texts through the official Python SDK: concurrent callers, one text a call. Prints its figures as JSON.

Vectors are asked for and kept as base64, so that they can be compared byte by byte.
"""

import argparse
import asyncio
import json
import os
import time

import openai


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--texts", required=True, help="one text a line")
    parser.add_argument("--vectors", required=True, help="one base64 vector a line, in the order of the texts")
    return parser.parse_args()


async def caller(client, model, texts, turns, vectors):
    """Takes the next text until there is none; never asks for two at once, never retries."""
    for index in turns:
        answer = await client.embeddings.create(model=model, input=texts[index], encoding_format="base64")
        vectors[index] = answer.data[0].embedding


async def main():
    given = arguments()
    with open(given.texts, encoding="utf-8") as file:
        texts = file.read().split("\n")
    vectors = [None] * len(texts)
    turns = iter(range(len(texts)))
    async with openai.AsyncOpenAI(
        base_url=given.url + "/v1", api_key=os.environ["TIDEMILL_KEY"], max_retries=0, timeout=120
    ) as client:
        began = time.monotonic()
        await asyncio.gather(*(caller(client, given.model, texts, turns, vectors) for _ in range(given.callers)))
        seconds = time.monotonic() - began
    with open(given.vectors, "w", encoding="utf-8") as file:
        file.write("\n".join(vectors))
    print(json.dumps({"texts": len(texts), "seconds": seconds, "per_second": len(texts) / seconds}))


asyncio.run(main())
