// Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
// What was found, over its picture, as mmlightvit/pictures/drawing.py draws it.

import { maskOf } from './decode.js';

const MASK_SHARE = 0.45;
const LEGIBLE = 480; // a picture smaller than this is enlarged
const LABELLED_SHARE = 0.01; // a class on a smaller share of the picture gets no label

/** Draw on a canvas, which takes the size of the picture, or a multiple where that is small. */
export function draw(canvas, picture, found, info) {
  const { height, width } = picture;
  const scale = Math.max(1, Math.ceil(LEGIBLE / Math.max(height, width)));
  const image = new ImageData(new Uint8ClampedArray(picture.data), width, height);
  if (found.labelMap) paintLabels(image, found.labelMap, info.palette);
  if (found.objects) paintMasks(image, found.objects, info.palette);
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const pen = canvas.getContext('2d');
  if (scale === 1) {
    pen.putImageData(image, 0, 0);
  } else {
    const small = new OffscreenCanvas(width, height);
    small.getContext('2d').putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
  const labels = new Labels(pen);
  const colour = (place) => info.palette[place];
  if (found.probs) {
    for (const [place, score] of top(found.probs, 3)) {
      labels.corner(`${info.classes[place]} ${score.toFixed(2)}`, colour(place));
    }
  } else if (found.labelMap) {
    for (const [place, x, y] of regionCentres(found.labelMap, height, width)) {
      labels.centre(info.classes[place], x * scale, y * scale, colour(place));
    }
  } else {
    const scaled = found.objects.map((object) => ({ ...object, box: object.box.map((value) => value * scale) }));
    for (const { box, label } of scaled.toReversed()) outline(pen, box, colour(label), labels.line); // the surest on top
    for (const { box, label, score } of scaled) labels.box(`${info.classes[label]} ${score.toFixed(2)}`, box, colour(label));
  }
}

/** The `count` most probable classes: [[class, probability]]. */
export function top(probs, count) {
  return [...probs].map((score, place) => [place, score]).sort((a, b) => b[1] - a[1]).slice(0, count);
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

function lineWidth(height, width) {
  return Math.max(2, Math.round((0.003 * (height + width)) / 2));
}

function outline(pen, [x1, y1, x2, y2], colour, line) {
  pen.strokeStyle = css(colour);
  pen.lineWidth = line;
  pen.strokeRect(x1 + line / 2, y1 + line / 2, Math.max(0, x2 - x1 - line), Math.max(0, y2 - y1 - line));
}

/** Labels that keep off each other and off the edge. */
class Labels {
  constructor(pen) {
    this.pen = pen;
    const { height, width } = pen.canvas;
    this.line = lineWidth(height, width);
    this.size = Math.max(12, Math.round((0.018 * (height + width)) / 2));
    pen.font = `${this.size}px system-ui, sans-serif`;
    pen.textBaseline = 'middle';
    this.taken = [];
  }

  box(text, [x1, y1, x2, y2], colour) {
    const [width, height] = this.extent(text);
    const beside = [[x2, y1], [x1 - width, y1], [x2, y2 - height], [x1 - width, y2 - height]];
    this.place(text, [[x1, y1 - height], [x1, y2], [x1, y1], [x1, y2 - height], ...beside], colour);
  }

  centre(text, x, y, colour) {
    const [width, height] = this.extent(text);
    const [left, above] = [x - width / 2, y - height / 2];
    this.place(text, [[left, above], [left, above - height], [left, above + height]], colour);
  }

  corner(text, colour) {
    this.place(text, [[0, 0], ...this.taken.map(([, , , bottom]) => [0, bottom])], colour);
  }

  extent(text) {
    return [this.pen.measureText(text).width + 2 * this.line + 2, Math.round(1.25 * this.size) + 2];
  }

  /** At the corner, of several, where it covers least of the labels that are there. */
  place(text, corners, colour) {
    const { height: H, width: W } = this.pen.canvas;
    const [width, height] = this.extent(text);
    let best = null;
    for (const [x, y] of corners) {
      const left = Math.max(0, Math.min(x, W - width));
      const above = Math.max(0, Math.min(y, H - height));
      const covered = this.covered(left, above, left + width, above + height);
      if (!best || covered < best.covered) best = { left, above, covered };
    }
    const { left, above } = best;
    this.taken.push([left, above, left + width, above + height]);
    this.pen.fillStyle = css(colour);
    this.pen.fillRect(left, above, width, height);
    this.pen.fillStyle = luminance(colour) > 0.18 ? '#000' : '#fff';
    this.pen.fillText(text, left + this.line + 1, above + height / 2);
  }

  covered(x1, y1, x2, y2) {
    const overlap = (a1, a2, b1, b2) => Math.max(0, Math.min(a2, b2) - Math.max(a1, b1));
    return this.taken.reduce((sum, [a, b, c, d]) => sum + overlap(x1, x2, a, c) * overlap(y1, y2, b, d), 0);
  }
}

function luminance(colour) {
  const linear = colour.map((c) => (c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

function blend(data, at, colour) {
  for (let c = 0; c < 3; c++) data[at + c] = (1 - MASK_SHARE) * data[at + c] + MASK_SHARE * colour[c];
}

function paintLabels(image, labelMap, palette) {
  for (let i = 0; i < labelMap.length; i++) blend(image.data, 4 * i, palette[labelMap[i]]);
}

/** Each mask in its class's colour with an outline, the largest first. */
function paintMasks(image, objects, palette) {
  const rim = Math.max(1, lineWidth(image.height, image.width) >> 1);
  const masked = objects.filter(maskOf).sort((a, b) => b.mask.area - a.mask.area);
  for (const { mask, label } of masked) {
    const inner = eroded(mask, rim);
    for (let y = 0, i = 0; y < mask.height; y++) {
      for (let x = 0; x < mask.width; x++, i++) {
        if (!mask.data[i]) continue;
        const at = 4 * ((mask.top + y) * image.width + mask.left + x);
        if (inner[i]) blend(image.data, at, palette[label]);
        else image.data.set(palette[label], at);
      }
    }
  }
}

/** A mask without its pixels nearer than `by` to what is outside. */
function eroded({ data, height, width }, by) {
  for (; by > 0; by--) {
    const before = data;
    data = new Uint8Array(before.length);
    for (let y = 1; y < height - 1; y++) {
      for (let x = 1, i = y * width + 1; x < width - 1; x++, i++) {
        data[i] = before[i] & before[i - 1] & before[i + 1] & before[i - width] & before[i + width];
      }
    }
  }
  return data;
}

/** For each class that covers enough, the point that lies deepest inside of it: [class, x, y], largest class first. */
function regionCentres(labelMap, height, width) {
  const step = Math.max(1, Math.floor(Math.max(height, width) / 96));
  const start = step >> 1;
  const [rows, columns] = [height, width].map((side) => Math.ceil((side - start) / step));
  const small = new Uint16Array(rows * columns);
  const counts = new Map();
  for (let y = 0, i = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, i++) {
      small[i] = labelMap[(start + y * step) * width + start + x * step];
      counts.set(small[i], (counts.get(small[i]) || 0) + 1);
    }
  }
  const large = [...counts].filter(([, count]) => count >= LABELLED_SHARE * small.length).sort((a, b) => b[1] - a[1]);
  return large.map(([place]) => {
    let inner = Uint8Array.from(small, (label) => (label === place ? 1 : 0));
    for (let smaller = inner; smaller.includes(1); ) {
      inner = smaller;
      smaller = eroded({ data: inner, height: rows, width: columns }, 1);
    }
    const points = [...inner.keys()].filter((i) => inner[i]).map((i) => [i % columns, Math.floor(i / columns)]);
    const middle = [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
    const distance = ([x, y]) => (x - middle[0]) ** 2 + (y - middle[1]) ** 2;
    const [x, y] = points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    return [place, (x + 0.5) * step, (y + 0.5) * step];
  });
}
