// Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
// The model in a thread of its own, so that the page can be used while it runs.
// Takes {picture, side}; gives {progress}, {info}, then for each picture {found, milliseconds}, or {error}.

import { Model } from './model.js';

const opened = Model.open((progress) => postMessage({ progress }));
opened.then(({ info }) => postMessage({ info }), fail);

onmessage = async ({ data }) => {
  try {
    const model = await opened;
    const start = performance.now();
    const found = await model.predict(data.picture, data.side);
    postMessage({ found, milliseconds: performance.now() - start });
  } catch (error) {
    fail(error);
  }
};

function fail(error) {
  postMessage({ error: error.message || String(error) });
}
