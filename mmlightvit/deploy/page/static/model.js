// Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
// The exported model and what it says of itself, run by ONNX Runtime Web.

import { labelMap, objects } from './decode.js';
import * as ort from './ort/ort.wasm.min.mjs';
import { prepare, withSide } from './prepare.js';

const at = (name) => new URL(name, import.meta.url).href;

export class Model {
  constructor(info, session) {
    this.info = info;
    this.session = session;
  }

  /** Fetch and open it. `progress` takes the share that has come, from 0 to 1. */
  static async open(progress = () => {}) {
    ort.env.wasm.wasmPaths = at('ort/');
    const info = await (await fetched('model.json')).json();
    const session = await ort.InferenceSession.create(await bytes(await fetched('model.onnx'), progress), {
      executionProviders: ['wasm'],
    });
    return new Model(info, session);
  }

  /** What it finds in a picture: {objects}, {probs} or {labelMap}. `side` is another short side than the model's. */
  async predict(picture, side = null) {
    const prepared = prepare(picture, side ? withSide(this.info.input, side) : this.info.input);
    const out = await this.run(prepared);
    try {
      if (out.dets) return { objects: objects(out, prepared) };
      if (out.probs) return { probs: out.probs.data.slice() };
      return { labelMap: labelMap(out.logits, prepared) };
    } finally {
      Object.values(out).forEach((tensor) => tensor.dispose());
    }
  }

  /** The outputs of the graph, by name. */
  run(prepared) {
    const inputs = { image: new ort.Tensor('float32', prepared.array, prepared.shape) };
    if (this.session.inputNames.includes('size')) {
      inputs.size = new ort.Tensor('int64', BigInt64Array.from(prepared.size, BigInt), [2]);
    }
    return this.session.run(inputs);
  }
}

async function fetched(name) {
  const response = await fetch(at(name));
  if (!response.ok) throw new Error(`${name} cannot be fetched: ${response.status} ${response.statusText}`);
  return response;
}

async function bytes(response, progress) {
  const total = Number(response.headers.get('Content-Length'));
  const parts = [];
  let count = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    count += value.length;
    if (total) progress(Math.min(1, count / total));
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
