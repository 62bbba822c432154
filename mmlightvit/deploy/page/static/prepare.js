// Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
// A picture as the network takes it, from `input` of model.json: pixel for pixel what mmlightvit/inference/preprocess.py
// gives, whose resizing is OpenCV's and Pillow's to the last bit.
//
// A picture here is {data, height, width}: RGBA, 8 bits, row by row; what a canvas gives.

/** Resize, crop, normalise and pad: {array (3, P, Q), shape, size (h, w), original (H, W), scale}. */
export function prepare(picture, spec) {
  const original = [picture.height, picture.width];
  let resized = picture;
  for (const [height, width] of targetSizes(...original, spec.resize)) {
    if (resized.height !== height || resized.width !== width) {
      resized = spec.interpolation === 'bicubic' ? bicubic(resized, height, width) : bilinear(resized, height, width);
    }
  }
  const scale = [resized.height / original[0], resized.width / original[1]];
  if (spec.crop) resized = centre(resized, ...spec.crop);
  const size = [resized.height, resized.width];
  const [rows, columns] = size.map((side) => roundUp(side, spec.pad_multiple || 1));
  const array = new Float32Array(3 * rows * columns);
  for (let channel = 0; channel < 3; channel++) {
    const source = spec.channels === 'bgr' ? 2 - channel : channel;
    const normal = normalised(spec.mean[channel], spec.std[channel]);
    for (let y = 0; y < size[0]; y++) {
      let to = (channel * rows + y) * columns;
      let from = 4 * y * size[1] + source;
      for (let x = 0; x < size[1]; x++, from += 4) array[to++] = normal[resized.data[from]];
    }
  }
  return { array, shape: [1, 3, rows, columns], size, original, scale };
}

/** The sizes [h, w] to which a picture is brought one after the other, rounded as the toolboxes round. */
export function targetSizes(height, width, resize) {
  if (!resize) return [];
  if (resize.height) {
    [height, width] = [resize.height, resize.width];
  } else if (resize.long) {
    const ratio = Math.min(resize.long / Math.max(height, width), resize.short / Math.min(height, width));
    [height, width] = [height, width].map((side) => Math.max(1, Math.trunc(side * ratio + 0.5)));
  } else if (height <= width) {
    [height, width] = [resize.short, Math.trunc((resize.short * width) / height)];
  } else {
    [height, width] = [Math.trunc((resize.short * height) / width), resize.short];
  }
  const multiple = resize.multiple || 1;
  return [[height, width], [roundUp(height, multiple), roundUp(width, multiple)]];
}

/** The same preparation for another short side; crop and long side keep their proportion to it. */
export function withSide(spec, side) {
  const resize = spec.resize || {};
  if (spec.crop) {
    const least = Math.min(...spec.crop);
    const short = Math.max(side, roundEven((side * (resize.short || least)) / least));
    return { ...spec, resize: { short }, crop: [side, side] };
  }
  if (!resize.short) return { ...spec, resize: { height: side, width: side } };
  const long = resize.long && { long: roundEven((side * resize.long) / resize.short) };
  return { ...spec, resize: { ...resize, short: side, ...long } };
}

/** Rounding as numpy and Python round: halves to the even number. */
export function roundEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

function roundUp(value, multiple) {
  return Math.ceil(value / multiple) * multiple;
}

/** What each of the 256 pixel values becomes, computed in 32 bits as numpy does. */
function normalised(mean, std) {
  const values = Float32Array.from({ length: 256 }, (_, value) => value - Math.fround(mean));
  return values.map((value) => value / Math.fround(std));
}

function centre(picture, height, width) {
  const top = Math.max(0, roundEven((picture.height - height) / 2));
  const left = Math.max(0, roundEven((picture.width - width) / 2));
  [height, width] = [Math.min(height, picture.height - top), Math.min(width, picture.width - left)];
  const data = new Uint8ClampedArray(4 * height * width);
  for (let y = 0; y < height; y++) {
    const start = 4 * ((top + y) * picture.width + left);
    data.set(picture.data.subarray(start, start + 4 * width), 4 * y * width);
  }
  return { data, height, width };
}

/** OpenCV's bilinear resizing: weights of 11 bits, four bits cut after the sum along a row, sixteen from each product. */
export function bilinear(picture, height, width) {
  const { data, height: H, width: W } = picture;
  const out = new Uint8ClampedArray(4 * height * width);
  if (2 * height === H && 2 * width === W) {
    // Here it takes the mean of four pixels.
    for (let y = 0, to = 0; y < height; y++) {
      for (let x = 0; x < 4 * width; x++, to++) {
        const from = 8 * y * W + 2 * x - (x & 3);
        out[to] = (data[from] + data[from + 4] + data[from + 4 * W] + data[from + 4 * W + 4] + 2) >> 2;
      }
    }
    return { data: out, height, width };
  }
  const rows = taps(H, height);
  const columns = taps(W, width);
  for (let x = 0; x < width; x++) {
    // Beyond the border, the last row counts with both weights and the last column with one; cutting shows it.
    if (columns.first[x] < 0 || columns.first[x] >= W - 1) [columns.low[x], columns.high[x]] = [2048, 0];
  }
  const clip = (place, size) => Math.min(Math.max(place, 0), size - 1);
  const across = new Map();
  const line = (row) => {
    // One source row, resized; each is used by a few rows of the result.
    if (!across.has(row)) {
      const values = new Int32Array(4 * width);
      for (let x = 0; x < width; x++) {
        const left = 4 * (row * W + clip(columns.first[x], W));
        const right = 4 * (row * W + clip(columns.first[x] + 1, W));
        for (let c = 0; c < 3; c++) {
          values[4 * x + c] = (data[left + c] * columns.low[x] + data[right + c] * columns.high[x]) >> 4;
        }
      }
      across.set(row, values);
    }
    return across.get(row);
  };
  for (let y = 0; y < height; y++) {
    const [above, below] = [clip(rows.first[y], H), clip(rows.first[y] + 1, H)];
    for (const row of across.keys()) if (row < above) across.delete(row);
    const [upper, lower] = [line(above), line(below)];
    for (let x = 0, to = 4 * y * width; x < 4 * width; x++, to++) {
      out[to] = (2 + ((upper[x] * rows.low[y]) >> 16) + ((lower[x] * rows.high[y]) >> 16)) >> 2;
    }
  }
  return { data: out, height, width };
}

/** The first of two source places of each target place, and the weights of both. */
function taps(size, target) {
  const first = new Int32Array(target);
  const low = new Int32Array(target);
  const high = new Int32Array(target);
  for (let i = 0; i < target; i++) {
    const place = Math.fround((i + 0.5) * (size / target) - 0.5);
    first[i] = Math.floor(place);
    const fraction = Math.fround(place - first[i]);
    low[i] = roundEven(Math.fround(1 - fraction) * 2048);
    high[i] = roundEven(fraction * 2048);
  }
  return { first, low, high };
}

/** Pillow's bicubic resizing: along the rows, to 8 bits, then along the columns, with weights of 22 bits. */
export function bicubic(picture, height, width) {
  let { data } = picture;
  if (width !== picture.width) data = convolved(data, picture.width, width, picture.height, 4, 4 * picture.width, 4 * width);
  if (height !== picture.height) data = convolved(data, picture.height, height, width, 4 * width, 4, 4);
  return { data, height, width };
}

/** One axis: `step` lies between its values, `from` and `to` between its lines in source and result. */
function convolved(data, size, target, lines, step, from, to) {
  const out = new Uint8ClampedArray(4 * target * lines);
  const scale = size / target;
  const stretch = Math.max(1, scale);
  for (let i = 0; i < target; i++) {
    const middle = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(middle - 2 * stretch + 0.5));
    const last = Math.min(size, Math.trunc(middle + 2 * stretch + 0.5));
    let weights = Array.from({ length: last - first }, (_, k) => cubic((k + first - middle + 0.5) / stretch));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    weights = weights.map((weight) => Math.trunc((weight / total) * 4194304 + (weight < 0 ? -0.5 : 0.5)));
    for (let line = 0; line < lines; line++) {
      for (let c = 0; c < 3; c++) {
        let sum = 2097152;
        for (let k = 0, at = line * from + first * step + c; k < weights.length; k++, at += step) {
          sum += data[at] * weights[k];
        }
        out[line * to + i * step + c] = sum >> 22; // clamped by the array
      }
    }
  }
  return out;
}

function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}
