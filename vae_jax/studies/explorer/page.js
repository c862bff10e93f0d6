// The page: what is shown, and what every control does to it.
//
// The image that is shown is decoded from a base point plus an amount of each direction that has a
// slider. When all sliders are reset, this is the base point again, bit for bit.

const model = JSON.parse(document.getElementById("model").textContent);
const decoder = new Decoder(model.layers, readWeights(document.getElementById("weights").textContent));
const [HEIGHT, WIDTH, CHANNELS] = model.image_shape;
const LONGEST = 4; // deviations at the end of a slider
const SECONDS_PER_FACE = 2; // of a walk
const MAX_UINT = 2 ** 32 - 1;

const byId = (id) => document.getElementById(id);
const offset = Float32Array.from(model.offset);
const shown = { base: offset, labels: new Float32Array(), about: "", seed: 33, index: 0 };
const directions = []; // every slider: { vector, amount, show() }
const shelf = []; // { z, labels, name, button }
let chosen = null, way = null, walking = null;

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The image.

const moved = () => directions.filter((direction) => direction.amount !== 0);

function currentPoint() {
  const z = Float64Array.from(shown.base);
  for (const { vector, amount } of moved()) {
    for (let i = 0; i < z.length; i++) z[i] += amount * vector[i];
  }
  return Float32Array.from(z);
}

function draw(canvas, z, labels) {
  const inputs = new Float32Array(decoder.inputs);
  inputs.set(usedPart(z));
  inputs.set(labels, model.z_dim);
  const image = decoder.decode(inputs);
  const pixels = new ImageData(pixelsOf(image, CHANNELS), WIDTH, HEIGHT);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

let waiting = false, milliseconds = 0;

// Draws the image before the browser's next frame, however many changes there are until then.
function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const start = performance.now(), z = currentPoint();
    draw(byId("image"), z, shown.labels);
    const last = performance.now() - start;
    milliseconds = milliseconds ? 0.9 * milliseconds + 0.1 * last : last;
    if (!walking) tell(z);
    byId("speed").textContent = `Decoded in ${milliseconds.toFixed(1)} ms.`;
  });
}

// Describes the image in words.
function tell(z) {
  const count = moved().length, used = usedPart(z);
  const radius = norm(used).toFixed(2), usual = Math.sqrt(used.length).toFixed(2);
  const how = count ? `, moved along ${count} direction${count > 1 ? "s" : ""}` : "";
  byId("status").textContent = `${shown.about}${how}. It lies ${radius} from the origin; points of the ` +
    `prior lie at about ${usual}.`;
  byId("image").setAttribute("aria-label", `Decoded image: ${shown.about}${how}`);
}

// Shows another base point, and resets all sliders.
function show(z, about, labels = shown.labels) {
  Object.assign(shown, { base: z, about, labels });
  for (const direction of directions) direction.put(0);
  for (const update of conditionControls) update();
  refresh();
}

// Sliders.

// Adds a slider along a direction, in deviations.
function addSlider(parent, name, hint, vector) {
  const input = element("input", {
    type: "range", min: -LONGEST, max: LONGEST, step: 0.05, value: 0, title: hint,
  });
  const output = element("output");
  const direction = { vector, amount: 0 };
  direction.put = (amount) => {
    direction.amount = Math.min(LONGEST, Math.max(-LONGEST, amount));
    input.value = direction.amount;
    output.textContent = direction.amount.toFixed(2);
  };
  const change = (amount) => { stopWalk(); direction.put(amount); refresh(); };
  input.addEventListener("input", () => change(Number(input.value)));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Delete" || event.key === "Backspace") change(0);
  });
  const row = element("label", { className: "slider" }, [
    element("span", {}, [name, element("small", { textContent: hint })]), input, output,
  ]);
  row.addEventListener("dblclick", () => change(0));
  direction.put(0);
  directions.push(direction);
  parent.append(row);
  return row;
}

function addDirections(id, some) {
  const list = element("div", { className: "scroll" });
  byId(id).append(list);
  for (const { name, hint, direction } of some) addSlider(list, name, hint, direction);
  byId(id).hidden = some.length === 0;
}

function addComponents() {
  const list = element("div", { className: "scroll" });
  byId("components").append(list);
  const { kl, active } = model.components;
  const order = kl.map((_, i) => i).sort((a, b) => kl[b] - kl[a]);
  for (const i of order) {
    const vector = kl.map((_, j) => (i === j ? model.deviations[i] : 0));
    const hint = `${kl[i].toFixed(2)} nats, ${active[i] ? "active" : "not active"}`;
    addSlider(list, `z ${i}`, hint, vector).classList.toggle("idle", !active[i]);
  }
}

// The pair of a told model: KL weight, on a logarithmic scale, and latent size.

const pair = { ...model.told?.pair };

// The dimensions of a point that the model uses at the pair: the first ones.
const usedPart = (z) => z.subarray(0, pair.z_dim ?? model.z_dim);

function tellPair() {
  const weight = Math.log(pair.kl_weight);
  decoder.tell(model.told.code[pair.z_dim].map(([rest, linear, square]) => rest + weight * (linear + weight * square)));
}

function addPair() {
  byId("told").hidden = !model.told;
  if (!model.told) return;
  const { kl_weight: weights, z_dim: sizes } = model.told;
  const add = (name, last, place, valueAt) => {
    const input = element("input", { type: "range", min: 0, max: last, step: "any", value: place });
    const output = element("output", { textContent: pair[name] });
    input.addEventListener("input", () => {
      pair[name] = valueAt(Number(input.value));
      output.textContent = pair[name];
      tellPair();
      refresh();
    });
    const label = { kl_weight: "KL weight", z_dim: "Latent size" }[name];
    byId("told").append(element("label", { className: "slider" }, [
      element("span", { textContent: label }), input, output,
    ]));
    return input;
  };
  if (weights.length) {
    const [low, high] = weights.map(Math.log);
    const place = (Math.log(pair.kl_weight) - low) / (high - low);
    add("kl_weight", 1, place, (t) => Number(Math.exp(low + t * (high - low)).toPrecision(3)));
  }
  if (sizes.length) {
    const place = sizes.findIndex((size) => size >= pair.z_dim);
    add("z_dim", sizes.length - 1, place, (t) => sizes[t]).step = 1;
  }
  tellPair();
}

// The labels of a conditional model: a class, or any of several attributes.

const conditionControls = []; // functions that set the controls to the labels of the image

function addCondition() {
  const { kind, names } = model.condition;
  byId("condition").hidden = names.length === 0;
  const change = (labels) => { shown.labels = labels; refresh(); };
  if (kind === "class") {
    const select = element("select", { ariaLabel: "Class" },
      names.map((name, i) => element("option", { value: i, textContent: name })));
    select.addEventListener("change", () => {
      change(Float32Array.from(names, (_, i) => Number(i === select.selectedIndex)));
    });
    conditionControls.push(() => { select.selectedIndex = shown.labels.indexOf(1); });
    byId("condition").append(select);
    return;
  }
  names.forEach((name, i) => {
    const box = element("input", { type: "checkbox" });
    box.addEventListener("change", () => {
      change(shown.labels.map((value, j) => (i === j ? Number(box.checked) : value)));
    });
    conditionControls.push(() => { box.checked = shown.labels[i] === 1; });
    const label = element("label", { className: "check" }, [box, ` ${name.replaceAll("_", " ")}`]);
    byId("condition").append(label);
  });
}

// Random points.

function whole(input) {
  const value = Math.floor(Number(input.value));
  return Number.isFinite(value) ? Math.min(MAX_UINT, Math.max(0, value)) : 0;
}

function addPriors() {
  byId("prior").append(...model.priors.map(({ title }, i) => element("option", { value: i, textContent: title })));
}

// A point of N(0, I) or of a prior that was fitted to codes.
function randomPoint(seed, index) {
  const fitted = model.priors[byId("prior").value], zDim = model.z_dim;
  return fitted ? fittedPoint(fitted, seed, index, shown.labels, zDim) : priorPoint(seed, index, zDim);
}

function showPoint(seed, index) {
  stopWalk();
  leaveWay();
  Object.assign(shown, { seed, index });
  [byId("seed").value, byId("index").value] = [seed, index];
  const prior = byId("prior").selectedOptions[0].textContent;
  show(randomPoint(seed, index), `Seed ${seed}, point ${index} of ${prior}`);
}

const step = (by) => showPoint(shown.seed, Math.min(MAX_UINT, Math.max(0, shown.index + by)));

// Walks from the image to the next point of the seed, and so on.
function startWalk() {
  leaveWay();
  let from = currentPoint(), began = null;
  const next = () => randomPoint(shown.seed, shown.index);
  const advance = () => { shown.index = (shown.index + 1) % MAX_UINT; byId("index").value = shown.index; };
  advance();
  let to = next();
  show(from, "");
  byId("status").textContent = "Walking from one random point to the next, along spheres.";
  const frame = (now) => {
    began ??= now;
    if (now - began >= 1000 * SECONDS_PER_FACE) {
      [from, began] = [to, now];
      advance();
      to = next();
    }
    shown.base = spherical(from, to, (now - began) / (1000 * SECONDS_PER_FACE));
    refresh();
    walking = requestAnimationFrame(frame);
  };
  walking = requestAnimationFrame(frame);
  byId("walk").setAttribute("aria-pressed", "true");
}

function stopWalk() {
  if (!walking) return;
  cancelAnimationFrame(walking);
  walking = null;
  byId("walk").setAttribute("aria-pressed", "false");
  shown.about = "A point of a walk";
  refresh();
}

// The shelf.

function keep(z, labels, name) {
  const canvas = element("canvas", { width: WIDTH, height: HEIGHT });
  draw(canvas, z, labels);
  const item = { z, labels, name };
  item.button = element("button", { title: name, ariaLabel: name, ariaPressed: "false" }, [canvas]);
  item.button.addEventListener("click", () => choose(chosen === item ? null : item));
  shelf.push(item);
  byId("shelf").append(item.button);
}

function choose(item) {
  chosen = item;
  for (const { button } of shelf) button.ariaPressed = String(button === item?.button);
  byId("chosen").hidden = byId("chosen-about").hidden = item === null;
}

const SHELF_ACTIONS = {
  show: () => { leaveWay(); show(chosen.z, chosen.name, chosen.labels); },
  add: () => { leaveWay(); show(added(1), `${shown.about} + ${chosen.name}`); },
  subtract: () => { leaveWay(); show(added(-1), `${shown.about} - ${chosen.name}`); },
  path: () => enterWay(currentPoint(), chosen),
  remove() {
    chosen.button.remove();
    shelf.splice(shelf.indexOf(chosen), 1);
    choose(null);
  },
};

// The code of the image plus or minus the difference of the chosen code from the mean code.
const added = (sign) => plus(currentPoint(), plus(chosen.z, offset, -1), sign);

function enterWay(from, to) {
  way = { from, to: to.z, name: `between ${shown.about} and ${to.name}` };
  byId("path").hidden = false;
  byId("share").value = 0;
  goAlong();
  byId("share").focus({ preventScroll: true });
}

function leaveWay() {
  way = null;
  byId("path").hidden = true;
}

function goAlong() {
  const t = Number(byId("share").value), kind = document.querySelector("[name=way]:checked").value;
  byId("share").nextElementSibling.textContent = `${Math.round(100 * t)} %`;
  const z = (kind === "straight" ? straight : spherical)(way.from, way.to, t);
  show(z, `${Math.round(100 * t)} % of the way ${way.name}`);
}

// Saving.

function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function saveLatents(points, name) {
  const latents = points.map((z) => Array.from(usedPart(z)));
  const text = JSON.stringify({ z_dim: latents[0]?.length, latents });
  download(new Blob([text], { type: "application/json" }), name);
}

// Dragging across the image, and keys.

function dragDirections(canvas) {
  let last = null;
  const byAmount = (across, up) => {
    stopWalk();
    [across, up].forEach((amount, i) => directions[i]?.put(directions[i].amount + amount));
    refresh();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = event;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last || !event.buttons) return;
    const scale = (2 * LONGEST) / canvas.clientWidth;
    byAmount((event.clientX - last.clientX) * scale, (last.clientY - event.clientY) * scale);
    last = event;
  });
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (!arrows[event.key]) return;
    event.preventDefault();
    byAmount(...arrows[event.key]);
  });
}

function reset() {
  stopWalk();
  for (const direction of directions) direction.put(0);
  refresh();
}

const BUTTONS = {
  previous: () => step(-1),
  next: () => step(1),
  walk: () => (walking ? stopWalk() : startWalk()),
  keep: () => { stopWalk(); keep(currentPoint(), shown.labels, shown.about); },
  reset,
  anywhere: () => showPoint(Math.floor(Math.random() * MAX_UINT), 0),
  mean: () => { stopWalk(); leaveWay(); show(offset, "The mean code"); },
  "save-image": () => byId("image").toBlob((blob) => download(blob, "image.png")),
  "save-latents": () => saveLatents([currentPoint()], "latents.json"),
  "save-shelf": () => saveLatents(shelf.map((item) => item.z), "shelf.json"),
};
const KEYS = { n: "next", p: "previous", w: "walk", k: "keep", r: "reset" };

function connect() {
  for (const [id, action] of Object.entries(BUTTONS)) byId(id).addEventListener("click", action);
  for (const button of byId("chosen").children) {
    button.addEventListener("click", () => { stopWalk(); SHELF_ACTIONS[button.dataset.do](); });
  }
  for (const id of ["prior", "seed", "index"]) {
    byId(id).addEventListener("change", () => showPoint(whole(byId("seed")), whole(byId("index"))));
  }
  for (const input of byId("path").querySelectorAll("input")) input.addEventListener("input", goAlong);
  byId("image").addEventListener("dblclick", reset);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=number], select");
    if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey) BUTTONS[KEYS[event.key.toLowerCase()]]?.();
  });
}

function start() {
  Object.assign(byId("image"), { width: WIDTH, height: HEIGHT });
  byId("image").style.aspectRatio = `${WIDTH} / ${HEIGHT}`;
  addPair();
  addCondition();
  addDirections("principal", model.principal);
  addDirections("attributes", model.attributes);
  addComponents();
  addPriors();
  dragDirections(byId("image"));
  connect();
  for (const { z, labels, name } of model.codes) keep(Float32Array.from(z), Float32Array.from(labels), name);
  const [first] = shelf;
  show(first.z, first.name, first.labels);
}

start();
