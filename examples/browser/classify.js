// Classifies a text with an exported model and colors its tokens by their contributions to the most probable label.
import * as ort from "onnxruntime-web";
import { Tokenizer } from "@huggingface/tokenizers";

const read = async (name) => {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} could not be loaded: ${response.status} ${response.statusText}`);
  return response.json();
};
const find = (id) => document.getElementById(id);

async function load() {
  const [tokenizer, settings, config] = await Promise.all(["tokenizer.json", "tokenizer_config.json", "config.json"].map(read));
  return {
    tokenizer: new Tokenizer(tokenizer, settings),
    session: await ort.InferenceSession.create("model.onnx"),
    labels: config.id2label,
    isMultiLabel: config.problem_type === "multi_label_classification",
  };
}

// Returns the tokens, the logit and the probability of each label, and the contributions, a list of labels for each token.
async function classify({ tokenizer, session, labels, isMultiLabel }, text) {
  const { ids } = tokenizer.encode(text);
  if (ids.length === 0) return null;
  const shape = [1, ids.length];
  const outputs = await session.run({
    input_ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), shape),
    attention_mask: new ort.Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape),
  });
  const logits = [...outputs.logits.data];
  const exponents = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
  const total = exponents.reduce((sum, value) => sum + value, 0);
  const probabilities = logits.map((logit, label) => (isMultiLabel ? 1 / (1 + Math.exp(-logit)) : exponents[label] / total));
  const contributions = ids.map((_, token) =>
    [...outputs.contributions.data.slice(token * logits.length, (token + 1) * logits.length)]);
  const names = logits.map((_, label) => labels[label]);
  return { text, tokens: ids.map((id) => tokenizer.decode([id])), labels: names, logits, probabilities, contributions };
}

function show(result) {
  find("tokens").replaceChildren();
  find("labels").replaceChildren();
  if (result === null) return;
  const order = result.labels.map((_, label) => label).sort((a, b) => result.logits[b] - result.logits[a]);
  const scores = result.contributions.map((labels) => labels[order[0]]);
  const largest = Math.max(...scores.map(Math.abs)) || 1;
  let position = 0;
  result.tokens.forEach((token, index) => {
    const start = result.text.toLowerCase().indexOf(token.toLowerCase(), position);
    if (start > position) find("tokens").append(result.text.slice(position, start));
    if (start >= 0) position = start + token.length;
    const piece = document.createElement("span");
    piece.textContent = token;
    piece.title = scores[index].toFixed(3);
    piece.style.setProperty("--color", `var(--${scores[index] > 0 ? "for" : "against"})`);
    piece.style.setProperty("--share", `${(100 * Math.abs(scores[index])) / largest}%`);
    find("tokens").append(piece);
  });
  for (const label of order.slice(0, 5)) {
    const row = find("labels").insertRow();
    row.insertCell().textContent = result.labels[label];
    row.insertCell().textContent = result.probabilities[label].toFixed(3);
  }
}

try {
  const model = await load();
  let queue = Promise.resolve();
  find("text").addEventListener("input", () => {
    const text = find("text").value;
    queue = queue.then(async () => {
      if (text === find("text").value) show(await classify(model, text));
    });
  });
  window.classify = (text) => classify(model, text);
  find("text").disabled = false;
  find("status").textContent = "The model runs in this page. Nothing is sent.";
} catch (error) {
  find("status").textContent = error.message;
}
