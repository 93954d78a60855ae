// Unwraps a webhook with the official Node SDK, and sees that forgeries are refused.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { OpenAI } = createRequire(`${process.env.TIDEMILL_NODE}/`)("openai");
const { WEBHOOK_SECRET: secret, WEBHOOK_BODY: body } = process.env;
const headers = JSON.parse(process.env.WEBHOOK_HEADERS);
const client = new OpenAI({ apiKey: "unused", webhookSecret: secret });

const isRefused = (...webhook) => assert.rejects(client.webhooks.unwrap(...webhook), OpenAI.InvalidWebhookSignatureError);

const event = await client.webhooks.unwrap(body, headers);
await isRefused(body.replace("created_at", "created_in"), headers);
await isRefused(body, { ...headers, "webhook-id": "evt_other" });
await isRefused(body, headers, "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVy");
console.log(`${event.type} ${event.data.id}, and three forgeries refused`);
