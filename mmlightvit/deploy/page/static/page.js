// Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
// The page: pictures in, what was found out. The model runs in worker.js.

import { maskOf } from './decode.js';
import { css, draw, top } from './draw.js';

const element = (id) => document.getElementById(id);
const [canvas, video, status] = ['canvas', 'video', 'status'].map(element);
const SHARES_OF_SIDE = [1, 3 / 4, 1 / 2, 3 / 8];
const SHOWN_CLASSES = 5;

const state = {
  info: null,
  shown: null, // the picture on the canvas
  found: null, // what the model says of it
  running: null, // the picture that the model has
  waiting: null, // the one it gets next; a newer one takes its place
  thresholds: [],
};

// A worker made from text keeps to this page's Content-Security-Policy; one from a file would have none of its own.
const start = new Blob([`import ${JSON.stringify(new URL('worker.js', import.meta.url).href)};`], { type: 'text/javascript' });
const worker = new Worker(URL.createObjectURL(start), { type: 'module' });
say('Loading the model …');
worker.onerror = () => say('The model cannot be run: this browser is too old, or a file of the page is missing.');
worker.onmessage = ({ data }) => {
  if ('progress' in data) {
    element('progress').hidden = data.progress === 1;
    element('progress').value = data.progress;
  } else if (data.info) {
    begin(data.info);
  } else {
    finish(data);
  }
};

// -- the model --------------------------------------------------------------------------------------------------------
function begin(info) {
  state.info = info;
  element('name').textContent = document.title = info.name;
  const names = info.classes.slice(0, 12).join(', ') + (info.classes.length > 12 ? ` and ${info.classes.length - 12} more` : '');
  element('about').textContent = `Knows ${names}. Pictures stay on this device.`;
  offerSides(info);
  if (info.task === 'detection' || info.task === 'instance') offerThresholds(info);
  for (const id of ['file', 'camera']) element(id).disabled = false;
  say('Ready.');
}

/** Smaller pictures are faster and less exact; a file for one size has no choice. */
function offerSides({ input, export: exported }) {
  const { short, height, width } = input.resize || {};
  const side = input.crop ? Math.min(...input.crop) : short || (height === width && height);
  if (!side || exported.static) return;
  SHARES_OF_SIDE.forEach((share, i) => {
    const pixels = Math.round((side * share) / 8) * 8;
    element('side').append(new Option(i ? `${pixels} px, faster` : `${side} px`, i ? pixels : ''));
  });
  element('side-label').hidden = false;
  element('side').onchange = () => state.shown && look(state.shown);
}

function look(picture) {
  state.waiting = picture;
  if (!state.running) next();
}

function next() {
  state.running = state.waiting;
  state.waiting = null;
  canvas.ariaBusy = String(Boolean(state.running));
  if (!state.running) return;
  if (!camera.stream) {
    state.shown = state.running;
    state.found = null;
    show();
    say('Looking …');
    const since = performance.now();
    clock = setInterval(() => (element('seconds').textContent = `${Math.round((performance.now() - since) / 1000)} s`), 1000);
  }
  worker.postMessage({ picture: state.running, side: Number(element('side').value) || null });
}

let clock = null;

function finish({ found, milliseconds, error }) {
  clearInterval(clock);
  element('seconds').textContent = '';
  if (error) {
    say(`This did not work: ${error}`);
  } else if (state.running) {
    [state.shown, state.found] = [state.running, found];
    const words = show();
    say(`${words} (${(milliseconds / 1000).toFixed(1)} s)`);
  }
  if (camera.stream && !error) state.waiting ??= frame();
  next();
}

// -- pictures in ------------------------------------------------------------------------------------------------------
async function take(blob) {
  if (!blob || !state.info) return;
  stopCamera();
  let bitmap;
  try {
    // As displayed, and with the pixels of the file: training does not convert colours either.
    bitmap = await createImageBitmap(blob, { imageOrientation: 'from-image', colorSpaceConversion: 'none' });
  } catch {
    say(`${blob.name || 'This'} is no picture that this browser can read.`);
    return;
  }
  look(pixelsOf(bitmap, bitmap.width, bitmap.height));
}

function pixelsOf(source, width, height) {
  const pen = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  pen.drawImage(source, 0, 0);
  return { data: pen.getImageData(0, 0, width, height).data, height, width };
}

const camera = { stream: null };

async function startCamera() {
  try {
    camera.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  } catch (error) {
    say(`The camera cannot be used: ${error.message}`);
    return;
  }
  video.srcObject = camera.stream;
  video.hidden = false;
  element('camera').ariaPressed = 'true';
  element('camera').textContent = 'Stop the camera';
  await video.play();
  look(frame());
}

function frame() {
  return pixelsOf(video, video.videoWidth, video.videoHeight);
}

function stopCamera() {
  if (!camera.stream) return;
  camera.stream.getTracks().forEach((track) => track.stop());
  camera.stream = video.srcObject = null;
  video.hidden = true;
  element('camera').ariaPressed = 'false';
  element('camera').textContent = 'Use the camera';
}

element('file').onchange = ({ target }) => {
  take(target.files[0]);
  target.value = ''; // the same file can be chosen again
};
element('camera').onclick = () => {
  if (camera.stream) stopCamera();
  else if (navigator.mediaDevices) startCamera();
  else say('Browsers give the camera to pages from https:// or localhost only.');
};
document.onpaste = ({ clipboardData }) => take(clipboardData.files[0]);
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add('dropping');
};
document.ondragleave = () => document.body.classList.remove('dropping');
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove('dropping');
  take(event.dataTransfer.files[0]);
};

// -- what was found ---------------------------------------------------------------------------------------------------
/** Draw the picture and fill the table; returns a line about it. */
function show() {
  canvas.hidden = false;
  const { shown, info } = state;
  const found = state.found || { objects: [] };
  const kept = found.objects ? { objects: found.objects.filter((o) => o.score >= state.thresholds[o.label]) } : found;
  draw(canvas, shown, kept, info);
  const [columns, rows] = table(kept);
  element('columns').replaceChildren(...columns.map((name) => cell('th', name)));
  element('found').replaceChildren(...rows.map(row));
  element('results').hidden = !state.found;
  const words = state.found ? summary(kept) : 'Being looked at';
  canvas.ariaLabel = `The picture. ${words}`;
  return words;
}

/** Names of the columns, and rows of [class, cells]. */
function table({ objects, probs, labelMap }) {
  if (probs) return [['Class', 'Probability'], top(probs, SHOWN_CLASSES).map(([place, score]) => [place, score.toFixed(3)])];
  if (labelMap) return [['Class', 'Share'], shares(labelMap).map(([place, share]) => [place, percent(share)])];
  const masks = state.info.task === 'instance';
  const rows = objects.map((object) => {
    const box = object.box.map((value) => value.toFixed(1)).join(', ');
    return [object.label, object.score.toFixed(3), box, ...(masks ? [maskOf(object).area] : [])];
  });
  return [['Class', 'Score', 'Box x1, y1, x2, y2', ...(masks ? ['Pixels'] : [])], rows];
}

function row([place, ...cells]) {
  const first = cell('td', state.info.classes[place]);
  first.prepend(swatch(place));
  const line = document.createElement('tr');
  line.append(first, ...cells.map((text) => cell('td', text)));
  return line;
}

function cell(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function swatch(place) {
  const made = document.createElement('span');
  made.className = 'swatch';
  made.style.background = css(state.info.palette[place]);
  return made;
}

function shares(labelMap) {
  const counts = new Map();
  for (const label of labelMap) counts.set(label, (counts.get(label) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([place, count]) => [place, count / labelMap.length]);
}

function summary({ objects, probs, labelMap }) {
  const { classes } = state.info;
  if (probs) return top(probs, 1).map(([place, score]) => `${classes[place]} ${score.toFixed(2)}`)[0];
  if (labelMap) return shares(labelMap).slice(0, SHOWN_CLASSES).map(([place, share]) => `${classes[place]} ${percent(share)}`).join(', ');
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) || 0) + 1);
  const words = [...counts].sort((a, b) => b[1] - a[1]).map(([place, count]) => `${count} × ${classes[place]}`);
  return words.join(', ') || 'Nothing found';
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

element('save').onclick = () => {
  canvas.toBlob((blob) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = `${state.info.name}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
};

// -- thresholds -------------------------------------------------------------------------------------------------------
function offerThresholds({ classes, thresholds }) {
  const own = classes.map((name) => thresholds.per_class[name]);
  const set = (values) => {
    state.thresholds = values;
    sliders.forEach((slider, place) => slider.set(values[place]));
    all.set(Math.min(...values));
    if (state.found) say(show());
  };
  const all = new Slider(element('all'), element('all-value'), (value) => set(classes.map(() => value)));
  const sliders = classes.map((name, place) => {
    const line = document.createElement('p');
    line.className = 'threshold';
    const [label, input, value] = ['label', 'input', 'output'].map((kind) => document.createElement(kind));
    [label.htmlFor, input.id, label.title] = [`class-${place}`, `class-${place}`, name];
    label.append(swatch(place), name);
    Object.assign(input, { type: 'range', min: 0, max: 1, step: 0.01 });
    line.append(label, input, value);
    element('per-class').append(line);
    return new Slider(input, value, (chosen) => set(state.thresholds.with(place, chosen)));
  });
  element('reset').onclick = () => set(own);
  element('thresholds').hidden = false;
  set(own);
}

class Slider {
  constructor(input, output, chosen) {
    [this.input, this.output] = [input, output];
    input.oninput = () => chosen(Number(input.value));
  }

  set(value) {
    this.input.value = value;
    this.output.textContent = value.toFixed(2);
  }
}

function say(words) {
  status.textContent = words;
}
