// Vercel's AI SDK, by chat, Responses and messages: prints what each way of asking gave.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, name] = process.argv.slice(2);
const compatible = createOpenAICompatible({
  name: "mesh", baseURL, apiKey: "unused", supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL, apiKey: "unused" });
const anthropic = createAnthropic({ baseURL, apiKey: "unused" });

async function allOf(model) {
  const calls = [];
  const weather = tool({
    description: "The weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async (input) => {
      calls.push(["weather", input]);
      return "sunny";
    },
  });
  const ask = (prompt, more = {}) => generateText({ model, prompt, maxRetries: 0, ...more });
  const parts = [];
  const stream = streamText({ model, prompt: "Hi\n<<say one two three>>", maxRetries: 0 });
  for await (const part of stream.textStream) parts.push(part);
  const loop = await ask('Weather?\n<<think Hm.>>\n<<call weather {"city": "Rome"}>>', {
    tools: { weather }, stopWhen: stepCountIs(2),
  });
  const schema = z.object({ name: z.string(), height_m: z.number().int() });
  const place = await ask("Which mountain?", { output: Output.object({ schema }) });
  return {
    conversation: (await ask("Hi\n<<say Hello.>>")).text,
    stream: parts.join(""),
    call: calls[0],
    after: Boolean(loop.text),
    structured: Object.keys(place.output).sort(),
  };
}

const byChat = await allOf(compatible(name));
assert.deepEqual(await allOf(openai.responses(name)), byChat);
assert.deepEqual(await allOf(anthropic(name)), byChat);
console.log(JSON.stringify(byChat));
