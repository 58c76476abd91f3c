/* Colours: the palettes of the page's figures, and how a column of numbers is painted with them. */

const PALETTES = {
  vlag: "2369bd3972bc4a7bbc5983bd678bbe7594c0829cc38fa5c79baecba8b7cfb5c0d4c2cadacfd4e0dcdee6e9e9edf5f2f4faf5f4f9eeedf3e2e0edd5d3e7c8c6e2bcb9ddafadd8a3a0d39794ce8b88c97f7dc47371bf6765b95b5ab44f4fae4244a9373b",
  icefire: "bde7dba7d7d590c8d178b9ce60abcd4c9ccd3c8ccf377ad04167c74956b3484996413e7737355c2d2c452525322020251f1e1e291e2037202548242c5c2935722c3d8a2e43a22f44b93540cc4139da5334e66734ed7e40f29558f7ab75fbc192ffd4ac",
  mako: "0b04051409101c101c2416282b1c3531214237284f3b2e5d3e356b403c794143873f4c923b5698385f9c36699f3572a1357ba33484a5348da73496a9359fab37a8ac3cb1ad42b9ad4bc2ad57cbad6ad2ad82d8b099ddb6aee3c0c0e9ccd0efd9def5e5",
  viridis: "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e21918c1f988b1fa08822a78528ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725",
  rocket: "03051a0d0a21180f2924143230173a3c1a42481c48541e4e611f536e1f577b1f59891e5b971c5ba4195bb21758bf1654cb1b4fd62449df2f44e73d3fec4c3ef05c42f26b49f47a54f58860f5966cf6a37af6b089f6bc99f7c9aaf8d4bcf9e0cdfaebdd",
  roles: "1b1e237d828a8466b32c9c7cc2a83ec9567f7d828a",
};
/* The roles are those of colours.py: dead, constant, rare, mixed, linear, saturated, unknown. */

/** How much of its colour is left to what is not known, as FAINT in colours.py. */
const FAINT = 0.3;

/** The colours of a palette as an array of [red, green, blue]. */
function stops(name) {
  const text = PALETTES[name];
  const found = [];
  for (let i = 0; i < text.length; i += 6) {
    found.push([0, 2, 4].map((k) => parseInt(text.slice(i + k, i + k + 2), 16)));
  }
  return found;
}

/** 256 colours of a palette in one array of bytes. */
function ramp(name) {
  const found = stops(name);
  const bytes = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (found.length - 1);
    const low = Math.min(Math.floor(at), found.length - 2);
    for (let k = 0; k < 3; k++) bytes[3 * i + k] = found[low][k] + (at - low) * (found[low + 1][k] - found[low][k]);
  }
  return bytes;
}

/** The name of the palette: what diverges is palest in the middle on light paper, and darkest on dark. */
function paletteOf(paint, root) {
  if (paint.colours !== "diverging") return paint.colours;
  return d3.lab(inks(root).paper).l < 50 ? "icefire" : "vlag";
}

/** The ends of a scale as it is drawn (turned): fixed where the measure has limits, else what the values span. */
function endsOf(paint, turned, turn, stretched) {
  if (paint.scale === "share") return { low: 0, high: 1, fixed: true };
  if (paint.limits && !stretched) return { low: turn(paint.limits[0]), high: turn(paint.limits[1]), fixed: true };
  const sorted = sortedFinite(turned);
  let [low, high] = [quantile(sorted, 0.02), quantile(sorted, 0.98)];
  if (paint.centre !== null) {
    const centre = turn(paint.centre);
    const reach = Math.max(Math.abs(low - centre), Math.abs(high - centre)) || 1;
    [low, high] = [centre - reach, centre + reach];
  } else if (!(high > low)) [low, high] = [low - 0.5, high + 0.5];
  return { low, high, fixed: false };
}

/**
 * How a column is painted: `at(value)` is a place on the ramp from 0 to 255 (-1 for what is not defined),
 * `low` and `high` are the values at its ends, `beyond` says at which ends values lie outside, `fixed` whether
 * the ends are the same for every network.
 */
function painter(paint, values, root, stretched = false) {
  if (paint.scale === "names") {
    const found = stops(paint.colours);
    // dead, constant and, faint, unknown are the page's own inks, which follow light and dark
    const [ink, muted, paper] = ["ink", "muted", "paper"].map((name) => rgb(inks(root)[name]));
    found.splice(0, 2, ink, muted);
    found.splice(-1, 1, faded(muted, paper, FAINT));
    const bytes = new Uint8ClampedArray(256 * 3);
    found.forEach((colour, i) => bytes.set(colour, 3 * i));
    return { bytes, at: (v) => (v >= 0 ? v : -1), low: 0, high: found.length - 1, beyond: [false, false], fixed: true, names: true };
  }
  const logarithmic = paint.scale === "log";
  const turn = logarithmic ? (v) => (v > 0 ? Math.log(v) : NaN) : (v) => v;
  const back = logarithmic ? Math.exp : (v) => v;
  const turned = logarithmic ? new Float64Array(values.length) : values;
  for (let i = 0; logarithmic && i < turned.length; i++) turned[i] = turn(values[i]);
  const { low, high, fixed } = endsOf(paint, turned, turn, stretched);
  const beyond = [false, false];
  for (let i = 0; i < turned.length; i++) {
    if (turned[i] < low - 1e-9) beyond[0] = true;
    else if (turned[i] > high + 1e-9) beyond[1] = true;
  }
  const span = high - low;
  const at = (value) => {
    const place = turn(value);
    if (Number.isNaN(place)) return -1;
    return Math.max(0, Math.min(255, Math.round((255 * (place - low)) / span)));
  };
  return { bytes: ramp(paletteOf(paint, root)), at, low: back(low), high: back(high), beyond, fixed, logarithmic, names: false };
}

/** A colour of a painter as CSS. */
function css(paints, value, otherwise) {
  const at = paints.at(value);
  if (at < 0) return otherwise;
  return `rgb(${paints.bytes[3 * at]} ${paints.bytes[3 * at + 1]} ${paints.bytes[3 * at + 2]})`;
}

let kept = null;

/** The page's own inks, which follow its light or dark style; asked for once until that changes. */
function inks(root) {
  if (kept) return kept;
  const style = getComputedStyle(root);
  kept = {};
  for (const name of ["ink", "muted", "paper", "line", "measured", "expected", "critical"]) kept[name] = style.getPropertyValue(`--${name}`).trim();
  return kept;
}

function forgetInks() {
  kept = null;
}

/** What is seen of a colour on paper of which it covers a share. */
function faded(colour, paper, share) {
  return colour.map((v, k) => share * v + (1 - share) * paper[k]);
}

/** Red, green and blue of a colour written as #rrggbb. */
function rgb(hex) {
  return [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
}
