/* The profile above the map: the measure's median and middle half by depth, over the columns of the map. */

const PROFILE_HEIGHT = 70;

/** The middle half and the median of each layer; `order` are its channels by value, where they are sorted so already. */
function quartiles(layers, values, logarithmic, order = null) {
  return layers.map((layer, i) => {
    const mine = order ? rising(values, layer, order[i]) : sortedFinite(values.subarray(layer.start, layer.start + layer.n));
    const kept = logarithmic ? mine.filter((v) => v > 0) : mine;
    return [0.25, 0.5, 0.75].map((share) => quantile(kept, share));
  });
}

/** The finite values of a layer, the least first, from its channels with the largest first. */
function rising(values, layer, falling) {
  const found = new Float64Array(layer.n);
  let n = 0;
  for (let k = layer.n - 1; k >= 0; k--) {
    const v = values[layer.start + falling[k]];
    if (Number.isFinite(v)) found[n++] = v;
  }
  return found.subarray(0, n);
}

/** The share of each layer's channels that are dead. */
function deadShares(layers, values) {
  return layers.map((layer) => {
    const mine = values.subarray(layer.start, layer.start + layer.n);
    const share = mine.reduce((n, v) => n + (v === 0), 0) / layer.n;
    return [share, share, share];
  });
}

/**
 * The profile into the group `g`; `rows` are [low, middle, high] per visible layer, `x(i)` is the middle of column i.
 * `ends` are the ends of the colours: the line has the scale of the map, and grows where values lie beyond it.
 */
function drawProfile(g, title, rows, scale, line, ends, x, width) {
  const logarithmic = scale === "log" && rows.every((t) => !(t[0] <= 0));
  const known = rows.flat().concat(ends).filter((v) => Number.isFinite(v) && (!logarithmic || v > 0));
  g.append("text").attr("class", "title").attr("x", 0).attr("y", 10).text(shorten(title, Math.floor(width / 7.2)));
  let [low, high] = d3.extent(known);
  if (!(high > low)) [low, high] = logarithmic ? [low / 1.5, high * 1.5] : [low - 0.5, high + 0.5];
  const y = (logarithmic ? d3.scaleLog() : d3.scaleLinear()).domain([low, high]).range([PROFILE_HEIGHT - 6, 20]);
  const ticks = logarithmic ? logTicks(low, high, 3) : y.ticks(3);
  for (const value of ticks) {
    g.append("line").attr("class", "grid").attr("x1", 0).attr("x2", width).attr("y1", y(value)).attr("y2", y(value));
    g.append("text").attr("class", "tick").attr("x", -6).attr("y", y(value)).attr("dy", ".32em").text(tick(value));
  }
  if (line !== null && line !== undefined) {
    g.append("line").attr("class", "expected").attr("x1", 0).attr("x2", width).attr("y1", y(line)).attr("y2", y(line));
  }
  const points = rows.map((t, i) => ({ x: x(i), t })).filter((p) => p.t.every((v) => Number.isFinite(v) && (!logarithmic || v > 0)));
  const area = d3.area((p) => p.x, (p) => y(p.t[0]), (p) => y(p.t[2]));
  const path = d3.line((p) => p.x, (p) => y(p.t[1]));
  g.append("path").attr("class", "band").attr("d", area(points));
  g.append("path").attr("class", "measured").attr("d", path(points));
  if (points.length <= 80) {
    g.selectAll("circle").data(points).join("circle").attr("class", "dot").attr("r", 2).attr("cx", (p) => p.x).attr("cy", (p) => y(p.t[1]));
  }
}
