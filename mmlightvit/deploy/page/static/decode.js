// Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
// What the network gives, in pixels of the picture; the arithmetic is that of mmlightvit/deploy/runtime.py.

/** Objects from the outputs of a detector, by falling score: [{label, score, box, small}]; boxes within the picture. */
export function objects(out, prepared) {
  const [height, width] = prepared.original;
  const cells = out.masks && out.masks.dims.slice(1);
  const found = [];
  for (let i = 0; i < out.labels.dims[0]; i++) {
    const [x1, y1, x2, y2, score] = out.dets.data.subarray(5 * i, 5 * i + 5);
    const box = [x1 / prepared.scale[1], y1 / prepared.scale[0], x2 / prepared.scale[1], y2 / prepared.scale[0]];
    const small = cells && {
      probabilities: out.masks.data.slice(i * cells[0] * cells[1], (i + 1) * cells[0] * cells[1]),
      cells,
      box,
      size: prepared.original,
    };
    const clipped = box.map((value, k) => Math.min(Math.max(value, 0), k % 2 ? height : width));
    found.push({ label: Number(out.labels.data[i]), score, box: clipped, small });
  }
  return found.sort((a, b) => b.score - a.score);
}

/** The mask of an object, {top, left, height, width, data of 0 and 1, area}, computed when it is first asked for. */
export function maskOf(object) {
  if (object.small && !object.mask) object.mask = paste(object.small);
  return object.mask;
}

/** Probabilities in a box as a mask of the part of the picture around it, from 0.5 on. */
function paste({ probabilities, cells, box: [x1, y1, x2, y2], size: [H, W] }) {
  const top = Math.max(0, Math.floor(y1) - 1);
  const left = Math.max(0, Math.floor(x1) - 1);
  const height = Math.max(0, Math.min(H, Math.ceil(y2) + 1) - top);
  const width = Math.max(0, Math.min(W, Math.ceil(x2) + 1) - left);
  const within = (start, count, low, high, size) =>
    Array.from({ length: count }, (_, i) => {
      const place = high > low ? ((start + i + 0.5 - low) / (high - low)) * size - 0.5 : size / 2 - 0.5;
      return tent(place, size);
    });
  const columns = within(left, width, x1, x2, cells[1]);
  const rows = within(top, height, y1, y2, cells[0]);
  const data = new Uint8Array(height * width);
  const line = new Float32Array(cells[1]);
  for (let y = 0; y < height; y++) {
    line.fill(0);
    for (const [row, weight] of rows[y]) {
      for (let i = 0; i < cells[1]; i++) line[i] += weight * probabilities[row * cells[1] + i];
    }
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (const [column, weight] of columns[x]) sum += weight * line[column];
      data[y * width + x] = sum >= 0.5 ? 1 : 0;
    }
  }
  return { top, left, height, width, data, area: data.reduce((sum, value) => sum + value, 0) };
}

/** The class of each pixel of the picture, from the logits (1, classes, a, b) of the padded one. */
export function labelMap(logits, prepared) {
  const [, classes, a, b] = logits.dims;
  const [H, W] = prepared.original;
  const [rows, columns] = [0, 1].map((axis) => {
    // To the size that the network saw, of which padding is cut off, and on to the picture's.
    const seen = resizing(logits.dims[2 + axis], prepared.shape[2 + axis]).slice(0, prepared.size[axis]);
    return resizing(prepared.size[axis], prepared.original[axis]).map((taps) => through(taps, seen));
  });
  const out = new Uint16Array(H * W);
  const line = new Float32Array(classes * b);
  for (let y = 0; y < H; y++) {
    line.fill(0);
    for (const [row, weight] of rows[y]) {
      for (let c = 0; c < classes; c++) {
        for (let i = 0, from = (c * a + row) * b, to = c * b; i < b; i++) line[to++] += weight * logits.data[from++];
      }
    }
    for (let x = 0; x < W; x++) {
      let best = -Infinity;
      for (let c = 0; c < classes; c++) {
        let sum = 0;
        for (const [column, weight] of columns[x]) sum += weight * line[c * b + column];
        if (sum > best) [best, out[y * W + x]] = [sum, c];
      }
    }
  }
  return out;
}

/** The cells that linear interpolation draws on at a place, with their weights; none count beyond the first and last. */
function tent(place, cells) {
  const low = Math.floor(place);
  const part = place - low;
  return [[low, 1 - part], [low + 1, part]].filter(([cell, weight]) => cell >= 0 && cell < cells && weight > 0);
}

/** torch's bilinear resizing of one axis: for each place, what it draws on. */
function resizing(size, target) {
  return Array.from({ length: target }, (_, i) => {
    const place = (i + 0.5) * (size / target) - 0.5;
    return tent(Math.min(Math.max(place, 0), size - 1), size);
  });
}

/** One interpolation after another. */
function through(taps, before) {
  const sums = new Map();
  for (const [cell, weight] of taps) {
    for (const [earlier, share] of before[cell]) sums.set(earlier, (sums.get(earlier) || 0) + weight * share);
  }
  return [...sums];
}
