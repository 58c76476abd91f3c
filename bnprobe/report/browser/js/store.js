/* The data of the page: the manifest, and columns that are unpacked when they are first asked for. */

/** Letters of a text that takes so long to unpack that what is drawn already is painted before. */
const LONG = 1e6;

/** Bytes of a deflated and base64-coded text. */
async function unpack(text) {
  if (text.length > LONG) await new Promise((done) => setTimeout(done));
  const packed = atob(text);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Float32 numbers from three byte planes, the highest first; see packing.py. */
function floats(planes) {
  const n = planes.length / 3;
  const bits = new Uint32Array(n);
  for (let i = 0; i < n; i++) {
    bits[i] = ((planes[i] << 24) | (planes[n + i] << 16) | (planes[2 * n + i] << 8)) >>> 0;
  }
  return new Float32Array(bits.buffer);
}

const FORMULAS = {
  pre_mean: (c, i, eps) => c.running_mean[i] + c.shift[i] * Math.sqrt(c.running_var[i] + eps),
  pre_var: (c, i, eps) => c.scale_ratio[i] ** 2 * (c.running_var[i] + eps),
  post_mean: (c, i) => c.beta[i] + c.gamma[i] * c.shift[i],
  post_var: (c, i) => (c.gamma[i] * c.scale_ratio[i]) ** 2,
  kl: (c, i) => (c.scale_ratio[i] ** 2 + c.shift[i] ** 2 - 1) / 2 - Math.log(c.scale_ratio[i]),
};

/** Opens the data that stand in `root`. */
function openStore(root) {
  const manifest = JSON.parse(root.querySelector("script[data-bnp=manifest]").textContent);
  const texts = new Map();
  for (const element of root.querySelectorAll("script[data-bnp=blob]")) texts.set(element.dataset.name, element);
  let start = 0;
  for (const layer of manifest.layers) {
    layer.start = start;
    layer.title = visible(layer.name) + (layer.call ? ` (call ${layer.call + 1})` : "");
    layer.findings = [];
    start += layer.n;
  }
  manifest.findings.forEach((finding) => {
    for (const [at, channels] of finding.places) {
      manifest.layers[at].findings.push({ ...finding, channels });
    }
  });
  const asked = new Map();

  function bytes(name) {
    if (!asked.has(name)) {
      const element = texts.get(name);
      asked.set(name, element ? unpack(element.textContent) : Promise.resolve(null));
    }
    return asked.get(name);
  }

  const columns = new Map();

  /** A column over all channels of the network; null where the page does not carry it. */
  function column(name) {
    if (!columns.has(name)) columns.set(name, manifest.derived.includes(name) ? derive(name) : read(name));
    return columns.get(name);
  }

  async function read(name) {
    const planes = await bytes(`column-${name}`);
    return planes ? floats(planes) : null;
  }

  /** A column that follows from others by the formulas of derived.py. */
  async function derive(name) {
    const c = await several(["gamma", "beta", "running_mean", "running_var", "shift", "scale_ratio"]);
    const eps = new Float64Array(start);
    for (const layer of manifest.layers) eps.fill(layer.eps, layer.start, layer.start + layer.n);
    const found = new Float32Array(start);
    const formula = FORMULAS[name];
    for (let i = 0; i < start; i++) found[i] = formula(c, i, eps[i]);
    return found;
  }

  /** Some columns at once, by name. */
  async function several(names) {
    const found = await Promise.all(names.map(column));
    return Object.fromEntries(names.map((name, i) => [name, found[i]]));
  }

  /** A blob as it stands in the page; null where there is none. */
  const text = (name) => texts.get(name)?.textContent ?? null;

  return { manifest, nChannels: start, bytes, text, column, several, names: Object.keys(manifest.columns) };
}
