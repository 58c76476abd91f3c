/* Numbers as people read them: the same rules as numbers.py. */

const MISSING = "–";

/** Three significant digits, a true minus sign, a dash for what is not defined. */
function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (Number.isInteger(value) && size < 1e6) text = grouped(String(value));
  else if (size >= 1e-3 && size < 1e5) {
    const places = Math.max(digits - 1 - Math.floor(Math.log10(size)), 0);
    text = grouped(value.toFixed(places));
  } else {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    text = `${mantissa}e${Number(exponent)}`;
  }
  return text.replaceAll("-", "−");
}

/** Thousands set apart; the browser's own way of it takes a hundred times as long. */
function grouped(text) {
  return text.replace(/\d{4,}/, (digits, at) => (at && text[at - 1] === "." ? digits : digits.replace(/\B(?=(\d{3})+$)/g, ",")));
}

/** A number on an axis: no more digits than it has. */
function tick(value) {
  return number(Number(value.toPrecision(3)), 3).replace(/(\.\d*?)0+(?=$|e)/, "$1").replace(/\.(?=$|e)/, "");
}

/** 1 channel, 2 channels. */
function count(n, noun) {
  return `${grouped(String(n))} ${noun}${n === 1 ? "" : "s"}`;
}

/** The text with its middle left out where it is longer than `length`. */
function shorten(text, length = 34) {
  if (text.length <= length) return text;
  const tail = Math.floor(((length - 1) * 2) / 3);
  return `${text.slice(0, length - 1 - tail)}…${text.slice(text.length - tail)}`;
}

/** A path cut per segment: the longest words lose letters, numbers and the last part never do. */
function shortPath(text, length = 22) {
  const parts = text.split(".");
  while (parts.join(".").length > length) {
    const words = parts.map((part) => /^(\D*?)…?(\d*)$/.exec(part)?.[1].length ?? part.length);
    const at = d3.maxIndex(words, (n, i) => (i < parts.length - 1 ? n : 0.5 * n));
    if (words[at] < 4) return shorten(parts.join("."), length);
    const [, word, digits] = /^(.*?)…?(\d*)$/.exec(parts[at]);
    parts[at] = `${word.slice(0, word.length - 1 - (parts[at].includes("…") ? 0 : 1))}…${digits}`;
  }
  return parts.join(".");
}

/** What cannot be seen must not turn, hide or break what can. */
function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, "�");
}

/** A share between 0 and 1 of sorted numbers that lies below, by linear interpolation. */
function quantile(sorted, share) {
  if (!sorted.length) return NaN;
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

/** The finite numbers of a column, sorted. */
function sortedFinite(values) {
  const found = new Float64Array(values.length);
  let n = 0;
  for (let i = 0; i < values.length; i++) if (Number.isFinite(values[i])) found[n++] = values[i];
  return found.subarray(0, n).sort();
}

/** Normal density with mean 0 and standard deviation 1. */
function bell(z) {
  return Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
}
