// The official OpenAI client for Node, chat and Responses: prints what each way of asking gave.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const schema = {
  type: "object",
  properties: { name: { type: "string" }, height_m: { type: "integer" } },
  required: ["name", "height_m"],
  additionalProperties: false,
};
const turn = (content) => ({ role: "user", content });
const QUESTION = turn('Weather?\n<<call weather {"city": "Rome"}>>');

async function byChat() {
  const tools = [{ type: "function", function: { name: "weather", parameters } }];
  const ask = async (messages, more = {}) =>
    (await client.chat.completions.create({ model, messages, ...more })).choices[0].message;
  const parts = [];
  const stream = await client.chat.completions.create({
    model, messages: [turn("Hi\n<<say one two three>>")], stream: true,
  });
  for await (const chunk of stream) parts.push(chunk.choices[0]?.delta?.content ?? "");
  const said = await ask([QUESTION], { tools });
  const call = said.tool_calls[0];
  const result = { role: "tool", tool_call_id: call.id, content: "sunny" };
  const format = { type: "json_schema", json_schema: { name: "place", schema, strict: true } };
  const place = await ask([turn("Which mountain?")], { response_format: format });
  return {
    conversation: (await ask([turn("Hi\n<<say Hello.>>")])).content,
    stream: parts.join(""),
    call: [call.function.name, JSON.parse(call.function.arguments)],
    after: Boolean((await ask([QUESTION, said, result], { tools })).content),
    structured: Object.keys(JSON.parse(place.content)).sort(),
  };
}

async function byResponses() {
  const tools = [{ type: "function", name: "weather", parameters, strict: true }];
  const ask = (input, more = {}) => client.responses.create({ model, input, ...more });
  const parts = [];
  const stream = await ask("Hi\n<<say one two three>>", { stream: true });
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") parts.push(event.delta);
  }
  const { output } = await ask([QUESTION], { tools });
  const call = output.find((item) => item.type === "function_call");
  const result = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
  const format = { type: "json_schema", name: "place", schema, strict: true };
  const place = await ask("Which mountain?", { text: { format } });
  return {
    conversation: (await ask("Hi\n<<say Hello.>>")).output_text,
    stream: parts.join(""),
    call: [call.name, JSON.parse(call.arguments)],
    after: Boolean((await ask([QUESTION, ...output, result], { tools })).output_text),
    structured: Object.keys(JSON.parse(place.output_text)).sort(),
  };
}

const [chat, responses] = [await byChat(), await byResponses()];
assert.deepEqual(responses, chat);
console.log(JSON.stringify(chat));
