// The page sends photos to /predict one by one, and to /explain on demand. It uses plain DOM and loads no libraries.

const find = (selector, root = document) => root.querySelector(selector);
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
// A probability is never shown as "100.0 %" or "0.0 %", because no model is certain.
const probability = (p) => (p > 0.9995 ? "over 99.9 %" : p < 0.0005 ? "under 0.1 %" : percent(p));

/** Get an answer from the server. Throws an Error with a sentence for people if there is none. */
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.error || `The server answered ${response.status}.`);
  return answer;
}

/** Send a photo in a field of a form, and get the answer. */
function send(path, field, file) {
  const form = new FormData();
  form.append(field, file, file.name || "pasted image");
  return ask(path, { method: "POST", body: form });
}

/** Show the answer to one photo. Returns it in words, or null if the photo was refused. */
async function classify(file) {
  const started = performance.now();
  let answer;
  try {
    answer = (await send("../predict?pixels=true", "images", file)).predictions[0];
  } catch (fault) {
    showFault(fault.message);
    return null;
  }
  return showAnswer(file, answer, performance.now() - started);
}

function showAnswer(file, answer, milliseconds) {
  const item = find("#answer").content.cloneNode(true).firstElementChild;
  const [first, second] = Object.keys(answer.probabilities);
  const photo = find(".photo", item);
  photo.src = URL.createObjectURL(file);
  photo.alt = `The photo ${file.name}`;
  photo.classList.toggle("tiny", answer.width <= 64);
  find(".filename", item).textContent = `${file.name || "pasted image"}, ${answer.width}×${answer.height}`;
  find(".pixels", item).src = `data:image/png;base64,${answer.pixels}`;
  find(".label", item).textContent = `${answer.label}, ${probability(answer.probability)}`;
  find(".share", item).style.width = `${100 * answer.probabilities[first]}%`;
  find(".first", item).textContent = `${first} ${probability(answer.probabilities[first])}`;
  find(".second", item).textContent = `${second} ${probability(answer.probabilities[second])}`;
  find(".time", item).textContent = `answered in ${Math.round(milliseconds)} ms`;
  find(".explain", item).addEventListener("click", (event) => explain(file, item, event.target));
  find("#answers").prepend(item);
  return find(".label", item).textContent;
}

async function explain(file, item, button) {
  button.disabled = true;
  try {
    const answer = await send("../explain", "image", file);
    const [first, second] = Object.keys(answer.probabilities);
    const overlay = find(".overlay", item);
    overlay.src = `data:image/png;base64,${answer.overlay}`;
    overlay.alt = `The image in gray; blue where it speaks for ${first}, orange where it speaks for ${second}`;
    find(".for-first", item).textContent = `speaks for ${first}`;
    find(".for-second", item).textContent = `speaks for ${second}`;
    find(".explanation", item).hidden = false;
    button.hidden = true;
    find(".explanation", item).focus(); // the button is gone; from here a screen reader reads on
  } catch (fault) {
    showFault(fault.message);
  } finally {
    button.disabled = false;
  }
}

function showFault(sentence) {
  const item = find("#fault").content.cloneNode(true).firstElementChild;
  item.textContent = sentence;
  find("#answers").prepend(item);
}

/** Classify files one after another and show the progress. */
async function classifyAll(files) {
  const status = find("#status");
  let newest = null;
  for (const [index, file] of [...files].entries()) {
    status.textContent = files.length > 1 ? `Looking at photo ${index + 1} of ${files.length} …` : "Looking …";
    newest = await classify(file);
  }
  if (files.length > 1) status.textContent = `${files.length} photos done`;
  else status.textContent = newest ? `The newest answer: ${newest}` : "";
}

function showCard(card) {
  const people = card.individual_people_accuracy;
  const [low, high] = card.test_accuracy_interval;
  const facts = {
    "The approach": card.title,
    [`Right on ${card.test_images.toLocaleString("en")} test images`]:
      `${percent(card.test_accuracy, 2)} (95 % interval ${percent(low)} to ${percent(high)})`,
    ...(people ? { "Individual people": percent(people, 2) } : {}),
    "Model (SHA-256)": card.digest.slice(0, 12),
    "Dataset (SHA-256)": card.dataset_digest.slice(0, 12),
    ...(card.run_id ? { "Run in MLflow": card.run_id.slice(0, 12) } : {}),
  };
  for (const [name, value] of Object.entries(facts)) {
    const entry = document.createElement("div");
    for (const [tag, text] of [["dt", name], ["dd", value]]) {
      const element = document.createElement(tag);
      element.textContent = text;
      entry.append(element);
    }
    find("#facts").append(entry);
  }
  const [first, second] = card.class_names;
  document.title = `${first[0].toUpperCase()}${first.slice(1)} or ${second}?`;
  find("#title").textContent = document.title;
  find("#card").hidden = false;
}

async function showSamples() {
  const names = await ask("samples");
  for (const name of names) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const image = document.createElement("img");
    button.type = "button";
    image.src = `samples/${encodeURIComponent(name)}`;
    image.alt = `Classify the test image ${name.replace(/\.png$/, "")}`;
    button.addEventListener("click", async () => {
      const blob = await (await fetch(image.src)).blob();
      await classifyAll([new File([blob], name, { type: "image/png" })]);
    });
    button.append(image);
    item.append(button);
    find("#sample-list").append(item);
  }
  find("#samples").hidden = names.length === 0;
}

for (const input of [find("#pick"), find("#camera")]) {
  input.addEventListener("change", async () => {
    await classifyAll([...input.files]);
    input.value = ""; // so that people can choose the same photo again
  });
}
const drop = find("#drop");
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) classifyAll([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) classifyAll([...event.clipboardData.files]);
});

try {
  showCard(await ask("../model"));
  await showSamples();
} catch (fault) {
  showFault(fault.message);
}
